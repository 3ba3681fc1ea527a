//go:build race

package ipam

// raceDetector is whether the race detector, which makes everything ten times slower, watches.
const raceDetector = true
