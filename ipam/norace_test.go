//go:build !race

package ipam

const raceDetector = false
