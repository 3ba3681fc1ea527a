package tap

// LimitWrites sets the bytes that a queue of a kernel's device may have under way, for tests that want few.
func LimitWrites(q Queue, size int) error { return limitWrites(q.(*queue).file, size) }
