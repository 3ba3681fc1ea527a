// Package tap is the host side of the datapath: a device that hands over the frames which the bridge sends out of it.
//
// The seam is Device and Queue; Open returns the kernel's TAP, taptest has the same in memory, and one conformance
// suite (taptest.TestDevice) holds for all of them.
package tap

import (
	"errors"

	"weft/tap/virtio"
)

// MaxFrame is the longest frame in bytes that a queue reads or writes: a superframe's 64 KiB and its Ethernet header.
const MaxFrame = 65535 + 18

// MaxPieces is how many pieces the Frames given to a queue may have in More: what the kernel takes in one call.
const MaxPieces = 1024 - 2

// ErrFrame is wrapped by WriteFrames for a frame that the device refused, such as one shorter than an Ethernet
// header: the rest of the batch was written all the same.
var ErrFrame = errors.New("tap: frame refused by the device")

// Frame is an Ethernet frame, or a superframe where its Offload says so.
type Frame = virtio.Frame

// Queue is one of a device's packet queues. The kernel keeps a flow on one queue. One goroutine may read while another
// writes; two may not read at once, nor two write.
type Queue interface {
	// ReadFrames waits until the device has a frame, then appends to b all that are there and fit, and returns how many.
	// The frames lie in b's memory: they are b's owner's until its next Reset. After Close the error is net.ErrClosed.
	ReadFrames(b *Batch) (n int, err error)

	// WriteFrames hands frames to the kernel in order and returns how many it took. A frame refused is skipped; the
	// error, which wraps ErrFrame, is the first such. Frames are not kept. After Close the error is net.ErrClosed.
	WriteFrames(frames []Frame) (n int, err error)
}

// Device is a network interface whose other end is this process.
type Device interface {
	// Name is the interface's name, as "ip link" shows it.
	Name() string
	// MTU is the largest payload of a frame in bytes, the Ethernet header not counted.
	MTU() (int, error)
	// Features says what the device's frames may leave undone: those that ReadFrames returns leave nothing else undone,
	// and those given to WriteFrames may not.
	Features() virtio.Features
	// Queues returns the device's queues, at least one, the same ones at each call.
	Queues() []Queue
	// Close takes the interface away and ends every ReadFrames. It may be called from any goroutine, and again.
	Close() error
}
