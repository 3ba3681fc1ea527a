// Package carrier moves peers between the ways in which their frames can go: through the router in userspace, which always works, and
// through carriers, which the kernel serves by itself.
//
//	pods --- bridge "weave" --+-- TAP          --- router  --- peers that are carried in userspace
//	                          +-- carrier's port ------------- peers that are carried by the kernel
//
// A Carrier is one such way, with a port of its own at the bridge of the pods; the packages below this one make them. All ports are
// isolated: the bridge forwards no frame from one to another. It floods broadcasts to all of them: the router sends them to its peers,
// each carrier to the peers that it carries. So each peer must belong to exactly one. A Controller ensures that for one carrier: it sends
// probes over it, moves a peer there when several in a row were answered, and back to userspace within a second when they are not
// answered any more.
//
//   - carrier.go: what a carrier is; probe.go: what probes say; path.go: the decision for one peer (all without I/O)
//   - controller.go, members.go, program.go: the engine that runs the paths
//   - carriertest: a carrier in memory, and the tests that each carrier passes
package carrier

import (
	"context"
	"errors"
	"net/netip"

	"weft/internal/ether"
	"weft/internal/peer"
)

// Kind is a way in which frames can go to a peer.
type Kind string

// Kinds.
const (
	Userspace Kind = "userspace" // the router; not a Carrier
	VXLAN     Kind = "vxlan"     // frames that need no seal
	WireGuard Kind = "wireguard" // sealed frames
	Direct    Kind = "direct"    // unicast IP on one link, without a header; all else goes by another one
)

// Errors that callers branch on. The errors that wrap them name the cause and a remedy.
var (
	// ErrConfig: a field of a configuration is invalid.
	ErrConfig = errors.New("bad configuration")
	// ErrGone: the device of a carrier was deleted by another program.
	ErrGone = errors.New("the device is gone")
	// ErrPeers: SetPeers would reach other peers now.
	ErrPeers = errors.New("other peers can be reached")
	// ErrUnknownPeer: the peer is not among those of the last SetPeers.
	ErrUnknownPeer = errors.New("unknown peer")
)

// Peer is a node that a carrier can reach.
type Peer struct {
	ID peer.ID
	// Addr is the node's address on the underlay, to which datagrams for it go and from which its datagrams come. No other peer has it,
	// apart from those of pairs.
	Addr netip.Addr
	// Pair is what the two nodes have agreed on where a carrier does not reach the peer as it reaches others; zero: nothing.
	Pair Pair
}

// Pair describes a way for two nodes alone, through an address translator or between underlays of two families. One of them begins: the
// other one hears from where its packets come.
type Pair struct {
	// Port is the UDP port of the peer; 0: the peer begins.
	Port uint16
	// VNI is that of the frames in both directions. A node has one for each of its pairs.
	VNI uint32
	// Token shows the node that does not begin which packets are those of the peer.
	Token Token
}

// Token is a random number that the two nodes of a pair alone know.
type Token [16]byte

// Carrier carries frames to peers through the kernel. Carry, Send and Sample are called from one goroutine, SetPeers and Ensure from a
// second one, and Receive from a third one. Close ends Receive. carriertest.Run tests what a Carrier has to do.
type Carrier interface {
	// SetPeers replaces the peers that may send frames by the carrier, and returns those that it can reach. It carries none of the new
	// ones yet, and does not change those that were there before. Those with another address, or without one now, are forgotten.
	SetPeers(ctx context.Context, peers []Peer) (reachable []Peer, err error)
	// Carry starts or ends carrying a peer. macs are hardware addresses behind the peer, which the bridge then learns at the port of
	// the carrier. The error wraps ErrUnknownPeer if the peer is to be carried and is not one of SetPeers.
	Carry(id peer.ID, on bool, macs []ether.Addr) error
	// Forget makes the bridge flood frames for macs, which Carry had, until it has seen them again.
	Forget(macs []ether.Addr) error
	// Send sends a probe to p.To. Errors are treated as a lost probe. It wraps ErrUnknownPeer if that is not one of SetPeers.
	Send(p Probe) error
	// Receive waits for a probe of any peer of SetPeers. The error is net.ErrClosed after Close.
	Receive() (Probe, error)
	// Sample returns the counters of the carrier and whether it can carry frames. The error wraps ErrGone if its device was deleted.
	Sample() (Sample, error)
	// Counts returns what the carrier has carried from and to the peers of SetPeers. They begin again when another program changes what
	// counts. The error is net.ErrClosed after Close. Any goroutine may call it.
	Counts() (map[peer.ID]Counts, error)
	// Ensure restores what other programs changed. The error wraps ErrPeers if SetPeers has to be called again with the same peers.
	Ensure(ctx context.Context) error
	// Keep makes Close leave everything on the host, so that the kernel goes on carrying frames. It does nothing for a carrier beside another
	// one, which carries the frames then.
	Keep()
	Close() error
}

// Counts are the frames that a carrier has carried from and to a peer, probes included, and their bytes. The kernel counts a superframe
// (GSO) as one frame.
type Counts struct{ RxFrames, RxBytes, TxFrames, TxBytes uint64 }

// Sample is the state of a carrier at one moment.
type Sample struct {
	// Ready: frames pass, not only probes. Why says why not, where the carrier knows more than that its device is down.
	Ready bool
	Why   string
	// Frames counts the frames received, sent and dropped by the carrier, including probes.
	Frames uint64
	// Parts of Frames, and their bytes with the inner headers.
	RxFrames, RxBytes, TxFrames, TxBytes, TxDropped uint64
	// BadProbes counts frames to the address of probes that are none, or probes of another version.
	BadProbes uint64
}
