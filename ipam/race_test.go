//go:build race

package ipam

// raceDetector reports whether the race detector is enabled, which makes everything ten times slower.
const raceDetector = true
