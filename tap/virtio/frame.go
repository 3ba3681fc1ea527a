package virtio

// Frame is an Ethernet frame, or a superframe if Offload has a GSO type.
type Frame struct {
	// Offload describes the work that the sender's kernel left to do; zero for a plain frame.
	Offload Header
	// Data starts with the destination MAC address and has no frame check sequence. If More is set, Data holds at least
	// all headers.
	Data []byte
	// More are further pieces of the frame, in order behind Data, so that a reassembled superframe need not be copied.
	// Only frames that go to the kernel have them.
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

// Features is the set of offloads of a device: the work that its other side may leave to the reader, and accepts undone
// from the writer. No other feature is possible without FeatureChecksum.
type Features uint8

// Members of Features.
const (
	FeatureChecksum Features = 1 << iota // checksums to complete
	FeatureTSO4                          // TCP superframes over IPv4
	FeatureTSO6                          // TCP superframes over IPv6
	FeatureUSO                           // UDP superframes, over both; Linux 6.2
)

// Has reports whether all of want are in f.
func (f Features) Has(want Features) bool { return f&want == want }
