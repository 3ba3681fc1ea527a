package entropyport

import "weft/internal/flowhash"

// Index returns the number, below n, of the entropy port from which a frame leaves. All frames of a flow have one, in both directions and
// on all nodes with the same n: so the frames of a flow and their answers pass the queue with that number at both ends, and the kernel,
// which reads a flow from the queue of the TAP to which its answers were written last, leaves it there. frame must hold the header of
// Ethernet.
func Index(frame []byte, n int) int { return flowhash.Of(frame).Index(n, 0) }
