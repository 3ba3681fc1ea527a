// Package tap is the host side of the datapath: a device with which a process reads and writes the frames of a bridge
// port.
//
// The seam is Device and Queue: Open returns a TAP of the kernel, and taptest has a device in memory. One conformance
// suite (taptest.TestDevice) holds for all of them.
package tap

import (
	"errors"

	"weft/internal/poll"
	"weft/tap/virtio"
)

// MaxFrame is the longest frame of a queue in bytes: a superframe of 64 KiB and its Ethernet header.
const MaxFrame = 65535 + 18

// MaxPieces is the most pieces in More of a Frame that is written to a queue: the limit of the kernel for one call.
const MaxPieces = 1024 - 2

// FlowQueues is how many flow queues a queue has if its device has offloads, otherwise one. The frames of each are read in order; the flow
// queues take turns, and one that was empty goes first. So flows that send now and then do not wait for those that fill their queue. See
// docs/adr/0051-flow-queues.md.
const FlowQueues = 8

// ErrFrame is wrapped by the error of WriteFrames for a frame that the device refused, such as one shorter than an
// Ethernet header. The rest of the batch was written nonetheless.
var ErrFrame = errors.New("tap: frame refused by the device")

// Frame is an Ethernet frame, or a superframe if its Offload has a GSO type.
type Frame = virtio.Frame

// Queue is one of a device's packet queues. The kernel keeps a flow on one queue, and there in one flow queue. One goroutine may read while
// another writes, but not more.
type Queue interface {
	// ReadFrames appends all available frames that fit to b, and returns their number, 0 if there is none. The frames lie in
	// b's memory and are valid until its next Reset. After Close the error is net.ErrClosed.
	ReadFrames(b *Batch) (n int, err error)

	// Source is ready when there may be a frame to read, and after Close.
	Source() poll.Source

	// WriteFrames writes frames in order and returns the number written. It skips refused frames and returns the error
	// of the first one, which wraps ErrFrame. It does not keep frames. After Close the error is net.ErrClosed.
	WriteFrames(frames []Frame) (n int, err error)
}

// Device is a network interface with this process at its other end.
type Device interface {
	// Name returns the name of the interface.
	Name() string
	// MTU returns the largest payload of a frame in bytes, without the Ethernet header.
	MTU() (int, error)
	// Features returns the offloads of the device: the work that may be left undone in frames from ReadFrames, and in
	// frames to WriteFrames.
	Features() virtio.Features
	// Queues returns the queues of the device, at least one; they never change.
	Queues() []Queue
	// Close removes the interface. It may be called from any goroutine, and more than once.
	Close() error
}
