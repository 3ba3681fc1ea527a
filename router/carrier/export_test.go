package carrier

// Intervals of a Controller.
const (
	Gap       = gap
	KeepEvery = keepEvery
)
