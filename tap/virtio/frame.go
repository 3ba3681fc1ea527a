package virtio

// Frame is an Ethernet frame, or a superframe where Offload says so.
type Frame struct {
	// Offload is what the sender's kernel left to do. Zero for a plain frame.
	Offload Header
	// Data starts with the destination MAC address and has no frame check sequence. Where More is set it holds at least
	// all the headers.
	Data []byte
	// More are the further pieces of the frame, in order behind Data: a superframe put together again is handed over
	// without being copied. Only of frames that go to the kernel.
	More [][]byte
}

// Len returns the length of the frame in bytes.
func (f Frame) Len() int {
	n := len(f.Data)
	for _, piece := range f.More {
		n += len(piece)
	}
	return n
}

// Features is a set of what the other side of a device may leave undone, and takes undone. Without FeatureChecksum
// there are no others.
type Features uint8

// Members of Features.
const (
	FeatureChecksum Features = 1 << iota // checksums left to write
	FeatureTSO4                          // TCP superframes over IPv4
	FeatureTSO6                          // TCP superframes over IPv6
	FeatureUSO                           // UDP superframes, over both; Linux 6.2
)

// Has reports whether all of want are in f.
func (f Features) Has(want Features) bool { return f&want == want }
