package tap

// LimitWrites sets the most bytes in flight of each flow queue of a kernel device, for tests that need a small limit.
func LimitWrites(q Queue, size int) error {
	for _, f := range q.(*queue).flows {
		if err := limitWrites(f, size); err != nil {
			return err
		}
	}
	return nil
}

// FlowQueueOf returns the flow queue of a kernel device that a frame is written to.
func FlowQueueOf(q Queue, frame []byte) int { return q.(*queue).flowOf(&Frame{Data: frame}) }

// Waits returns how often the last WriteFrames has waited for the host.
func Waits(q Queue) int { return q.(*queue).out.waits }
