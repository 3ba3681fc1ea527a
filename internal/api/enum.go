package api

// PeerState is the state of a member of the network, as far as the answering node knows.
type PeerState string

// States of a peer.
const (
	PeerAlive PeerState = "alive"
	PeerDead  PeerState = "dead" // does not answer, and did not leave
	PeerLeft  PeerState = "left" // left the network ("weft leave")
)

// Link is how a peer is reached.
type Link string

// Links to a peer.
const (
	LinkDirect Link = "direct" // datagrams go straight to the peer
	LinkRelay  Link = "relay"  // through another node, Peer.Via
	LinkNone   Link = "none"   // not reached; also that of the node itself
)

// Links returns all values of Link. The caller owns the slice.
func Links() []Link { return []Link{LinkDirect, LinkRelay, LinkNone} }

// Datapath is the part of a node that carries frames to a peer. It is empty for the node itself and for peers that are not
// alive.
type Datapath string

// Datapaths of a peer, and of a whole node.
const (
	DatapathUserspace Datapath = "userspace"
	DatapathKernel    Datapath = "kernel"
	DatapathMixed     Datapath = "mixed" // of a node only: the kernel carries frames to some of its peers
)

// Carrier is what carries frames to a peer. It is empty for the node itself and for peers that are not alive.
type Carrier string

// Carriers. All but the first are of the kernel.
const (
	CarrierUserspace Carrier = "userspace"
	CarrierVXLAN     Carrier = "vxlan"     // frames that need no encryption
	CarrierWireGuard Carrier = "wireguard" // encrypted frames
	CarrierDirect    Carrier = "direct"    // unicast IP that is routed on one link; other frames go by VXLAN or userspace
)

// Datapath returns the part of a node that serves the carrier.
func (c Carrier) Datapath() Datapath {
	switch c {
	case "":
		return ""
	case CarrierUserspace:
		return DatapathUserspace
	default:
		return DatapathKernel
	}
}

// NameSource is where a name comes from.
type NameSource string

// Sources of names.
const (
	NameFromAttach    NameSource = "attach" // "weft attach --hostname" on this node
	NameFromContainer NameSource = "cni"    // a container that a runtime added through CNI on this node
	NameFromDocker    NameSource = "docker" // a container of Docker on this node
	NameFromOwner     NameSource = "owner"  // another owner of a lease on this node
	NameFromAdd       NameSource = "add"    // "weft dns add" on this node
	NameFromNode      NameSource = "node"   // another node, which knows more
)

// Cipher is the cipher of the session with a peer. It is empty where datagrams are not encrypted, or where no cipher has been
// chosen yet.
type Cipher string

// Ciphers of a session.
const (
	CipherAES256GCM        Cipher = "aes-256-gcm"
	CipherChaCha20Poly1305 Cipher = "chacha20-poly1305"
)

// NetworkKind is what admits nodes to the network of a node.
type NetworkKind string

// Kinds of networks.
const (
	NetworkPlain      NetworkKind = "plain"      // any node is admitted, and nothing is sealed
	NetworkSecret     NetworkKind = "secret"     // nodes with a common secret
	NetworkIdentities NetworkKind = "identities" // nodes with a certificate of a CA
	NetworkBoth       NetworkKind = "both"       // either; meant for the change from one to the other
)

// IPAMState is the state of a node's address allocator.
type IPAMState string

// States of an allocator.
const (
	IPAMIdle    IPAMState = "idle"    // no range is divided, and no address has been requested
	IPAMWaiting IPAMState = "waiting" // for the cause in IPAM.WaitingFor
	IPAMReady   IPAMState = "ready"   // addresses are allocated while any are free
)

// CheckResult is the outcome of a Check.
type CheckResult string

// Results of a Check.
const (
	CheckOK      CheckResult = "ok"
	CheckWarn    CheckResult = "warn"    // a node runs, but not as well as it could
	CheckFail    CheckResult = "fail"    // a node does not start, or carries no frames
	CheckUnknown CheckResult = "unknown" // the caller lacks the rights to find out
)

// Subjects of Client.Wait. The third is WaitPeers followed by a number of peers alive, such as "peers=3".
const (
	WaitReady = "ready"
	WaitIPAM  = "ipam"
	WaitPeers = "peers="
)

// Severity ranks a Condition.
type Severity string

// Severities, the mildest first.
const (
	SeverityInfo    Severity = "info"    // worth knowing; nothing has to be done
	SeverityWarning Severity = "warning" // the node works, but worse than it could, or not for every peer
	SeverityError   Severity = "error"   // something does not work, or addresses may be in use twice
)
