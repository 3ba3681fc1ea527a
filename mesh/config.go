package mesh

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"

	"github.com/hashicorp/memberlist"

	"weft/internal/identity"
	"weft/internal/target"
	"weft/mesh/addressbook"
	"weft/mesh/admission"
	"weft/mesh/metadata"
)

// Config configures a Mesh. All fields but Capabilities, Ranges, Version, Keys, Cluster, Credentials, Tunnel, Observer and
// Logger are required.
type Config struct {
	Identity Identity
	// Name is the nickname shown to people. It need not be unique.
	Name string
	// Transport carries memberlist's packets and streams: the result of Listen, or one in memory in tests.
	Transport memberlist.Transport
	// Advertise is the gossip address that is published to the other nodes.
	Advertise netip.AddrPort
	// DataPort is the UDP port of the datapath that is published to the other nodes.
	DataPort uint16
	// Capabilities are published to the other nodes: bits that describe what this node's datapath supports. The mesh
	// assigns them no meaning.
	Capabilities uint32
	// Ranges and Version are published for people: the address ranges of the node, and the version of its program.
	Ranges  []netip.Prefix
	Version string
	// DNSDomain is published for people: the domain of the node's names; empty: the default.
	DNSDomain string
	// Keys seal the gossip: at most MaxKeys, the preferred one first. Without keys gossip is plain. SetKeys replaces them.
	Keys []GossipKey
	// Cluster is the name of the network: nodes of other names are refused, even with the same keys. "": "weft".
	Cluster string
	// Credentials decide which nodes with a common key are admitted. Nil: all.
	Credentials Credentials
	// Signed is the certificate of this node with the CAs that it trusts; zero: none. Their keys stand before Keys. Then only
	// nodes with a certificate are admitted, or if there are Keys as well, those that have one of these. SetIdentity replaces it.
	Signed identity.File
	// Revoked keeps the lists of revoked nodes. Nil: they are lost at the end.
	Revoked admission.Store
	// Targets are the persistent targets.
	Targets *addressbook.Book
	// Peers are targets for this run only, from the command line, parsed.
	Peers []target.Target
	// Discovery makes the node dial members that it learned from other nodes in earlier runs, or that it lost.
	Discovery bool
	// Tunnel carries gossip to nodes that cannot be reached at their gossip address. Nil: there is no tunnel.
	Tunnel Tunnel
	// Observer is notified of changes of the membership. Nil: nothing is notified.
	Observer Observer
	// Logger receives the mesh's log. Nil discards it.
	Logger *slog.Logger
}

// Observer receives changes of the membership.
type Observer interface {
	// MembersChanged receives all members, ordered by ID, once at the start and after every change of one of them.
	// Changes that follow one another quickly are merged into one call. It is called from the goroutine of Mesh.Run,
	// without any lock held, one call at a time; while it blocks, further changes are not observed and gossip keys are
	// not switched. The callee owns the slice.
	MembersChanged(members []Member)
}

// validate returns an error about the first field that cannot be used.
func (c *Config) validate() error {
	switch {
	case c.Identity.ID.IsZero():
		return errors.New("mesh: no identity")
	case c.Transport == nil:
		return errors.New("mesh: no transport")
	case !c.Advertise.IsValid():
		return errors.New("mesh: no address to advertise")
	case len(c.Name) > metadata.MaxName:
		return fmt.Errorf("mesh: the name is longer than %d bytes", metadata.MaxName)
	}
	return admission.CheckSigned(c.Signed, c.Name)
}

func (c *Config) cluster() string { return cmp.Or(c.Cluster, "weft") }

func orDiscard(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}
