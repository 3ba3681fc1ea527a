package tap

// LimitWrites sets the most bytes in flight of a queue of a kernel device, for tests that need a small limit.
func LimitWrites(q Queue, size int) error { return limitWrites(q.(*queue).file, size) }
