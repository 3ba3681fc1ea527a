package router

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"weft/internal/peer"
	"weft/router/session"
	"weft/router/underlay"
	"weft/tap"
)

// ErrConfig is wrapped by the errors of New for an invalid Config.
var ErrConfig = errors.New("bad configuration")

// Config configures an Engine.
type Config struct {
	// Private is this node's static X25519 key, from which its ID is derived.
	Private [session.KeyLen]byte
	// Cluster is the name of the network; nodes of another network make no session.
	Cluster string
	// Secrets are those that the node shares with others, the first choice first; see session.Config. Without any,
	// frames are not sealed, and only attackers that are not on the path are kept out.
	Secrets []session.Secret
	// Offer lists the ciphers that the node can use.
	Offer session.Offer
	// StandardAES is session.Config.StandardAES.
	StandardAES bool
	// Trusted are the prefixes to and from which, as far as this node is concerned, frames need not be sealed. Without
	// Secrets all addresses are trusted.
	Trusted []netip.Prefix
	// Owners finds the peer that assigns an address of the overlay; nil: address queries of pods go to all peers.
	Owners AddressOwners
	// Sources finds the peer that assigns an address of the overlay, for SourceCheck; nil: no source address is checked.
	Sources AddressOwners
	// SourceCheck is what happens to frames with a foreign source address; 0: SourceOff.
	SourceCheck SourceCheck
	// CopyDSCP makes datagrams leave with the DSCP of the frame in them. Otherwise they have DSCP 0. ECN is always copied.
	CopyDSCP bool
	// Activity learns when frames come; nil: nothing does.
	Activity Activity
	// Events receives what the engine reports; nil: nothing is reported, and no dial-back is done for peers.
	Events Events
	// Device is the host's side. The engine owns it: Run closes it.
	Device tap.Device
	// Conns are the sockets: at least one, and at most one for each of the device's queues, as each writes to a queue
	// of its own. TAP queues share the sockets. Peers send to the source of a node's datagrams, so all sockets must
	// send from one address. The engine owns them: Run closes them.
	Conns []underlay.Conn
	// EntropyPorts are sockets on further ports, at most one for each TAP queue: frames to one peer leave from the port of their flow
	// while the peer has proven that they arrive from there. The engine owns them: Run closes them.
	EntropyPorts []underlay.Conn
	// FDBAge is how long an address is remembered after its last frame, in steps of a second; fdb.DefaultAge if 0. A
	// shorter age finds silent addresses that have moved sooner, a longer one floods less.
	FDBAge time.Duration
	// Logger receives messages for the operator, never at a rate that frames or datagrams determine; slog.Default if
	// nil.
	Logger *slog.Logger
	// Now is the clock; time.Now if nil.
	Now func() time.Time
}

// AddressOwners finds the owners of addresses of the overlay.
type AddressOwners interface {
	// OwnerOf returns the peer that assigns an address, false if it is unknown. The loops call
	// it for every address query of a pod, those of the sockets for source addresses: it must be safe for concurrent use, and must not wait.
	OwnerOf(netip.Addr) (peer.ID, bool)
}

// Activity learns when frames of pods are carried.
type Activity interface {
	// NoteFrames is called by the loops, once a batch of frames, with the present time. It must be safe for concurrent use, cheap, and
	// must not wait.
	NoteFrames(now time.Time)
}

// Events is how an Engine reports to its owner. No lock of the engine is held during a call, so all methods of the
// Engine may be called from it.
type Events interface {
	// PlainAgreed reports that Engine.PlainAgreed has changed for a peer. The handshake goroutine calls it, one call at
	// a time, and waits for it: no session is made meanwhile.
	PlainAgreed(id peer.ID)
	// LinksChanged reports the direct links, after every change. The liveness goroutine calls it, one call at a time,
	// and waits for it: no link is probed meanwhile.
	LinksChanged(links Links)
	// ControlReceived delivers a message that a peer has sent with SendControl. The loops call it:
	// it must be safe for concurrent use, must not wait, and must not keep message.
	ControlReceived(from peer.ID, to uint8, message []byte)
	// DialBack sends a datagram to an address from a port that was never used before, for a peer that tests whether it
	// is reachable. The dial-back goroutine calls it, one call at a time; it may wait for a short time.
	DialBack(to netip.AddrPort, datagram []byte)
}

// Validate returns an error that wraps ErrConfig and names the invalid field, or nil.
func (c Config) Validate() error {
	switch {
	case c.Device == nil:
		return fmt.Errorf("router: %w: Device is missing", ErrConfig)
	case len(c.Conns) == 0 || len(c.Conns) > len(c.Device.Queues()):
		return fmt.Errorf("router: %w: Conns: %d sockets for %d TAP queues", ErrConfig, len(c.Conns), len(c.Device.Queues()))
	case len(c.EntropyPorts) > len(c.Device.Queues()):
		return fmt.Errorf("router: %w: EntropyPorts: %d for %d TAP queues", ErrConfig, len(c.EntropyPorts), len(c.Device.Queues()))
	case c.FDBAge < 0:
		return fmt.Errorf("router: %w: FDBAge %s is negative", ErrConfig, c.FDBAge)
	}
	return nil
}
