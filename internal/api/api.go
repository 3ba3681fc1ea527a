// Package api is the API of the node daemon on its unix socket: the documents that it exchanges, and a client.
//
// The resources are HTTP under /v1, with bodies in JSON. Later versions may add fields, so a reader must ignore unknown ones.
package api

import (
	"fmt"
	"net/netip"
	"time"

	"weft/internal/ether"
	"weft/internal/peer"
)

// DefaultSocket is the path of the daemon's socket without configuration.
const DefaultSocket = "/run/weft/weft.sock"

// DefaultDNSDomain is the domain of names without configuration.
const DefaultDNSDomain = "weft.local"

// SocketEnv is the name of the environment variable with the path of the daemon's socket.
const SocketEnv = "WEFT_SOCKET"

// Auto in place of an address makes the daemon choose one.
const Auto = "auto"

// Status is the answer of GET /v1/status: a summary of the node.
type Status struct {
	Version string  `json:"version"`
	ID      peer.ID `json:"id"`
	Name    string  `json:"name"`
	// Ready is true if a pod can join now.
	Ready bool           `json:"ready"`
	Range []netip.Prefix `json:"range"`
	// Bridge and Tap are names of network interfaces. MTU is that of pods, in bytes.
	Bridge    string         `json:"bridge"`
	Tap       string         `json:"tap"`
	MTU       int            `json:"mtu"`
	Advertise netip.AddrPort `json:"advertise"`
	// DNSDomain is the domain of the names that the node answers. DNS is false if it answers none (--no-dns).
	DNSDomain string `json:"dns_domain"`
	DNS       bool   `json:"dns"`
	Encrypted bool   `json:"encrypted"`
	// Secrets counts the secrets in the secret file. Droppable is true if no live node needs those after the first.
	Secrets   int  `json:"secrets"`
	Droppable bool `json:"secrets_droppable"`
	// Network is what admits nodes. Identity is set if the node has one.
	Network  NetworkKind `json:"network"`
	Identity *Identity   `json:"identity,omitempty"`
	Datapath Datapath    `json:"datapath"`
	Offload  []string    `json:"offload"`
	Queues   int         `json:"queues"`
	// Peers counts members by state, including this node.
	Peers   map[PeerState]int `json:"peers"`
	Targets []Target          `json:"targets"`
	IPAM    IPAMState         `json:"ipam"`
	// GarbageFreed counts leases that ended because their attachment did not exist any more.
	GarbageFreed uint64         `json:"garbage_freed"`
	Exposed      []netip.Prefix `json:"exposed"`
	// Inward is what happens to packets from outside the overlay.
	Inward InwardMode        `json:"inward"`
	FDB    int               `json:"fdb"`
	Drops  map[string]uint64 `json:"drops"`
	// Relayed counts datagrams that this node relayed between other nodes.
	Relayed   uint64      `json:"relayed"`
	Neighbors Neighbors   `json:"neighbors"`
	Guard     GuardStatus `json:"guard"`
	Since     time.Time   `json:"since"`
	// Conditions say what is wrong, the most severe first.
	Conditions []Condition `json:"conditions"`
	// Warnings are the same as sentences: for each condition its text and its remedy.
	Warnings []string `json:"warnings"`
}

// Identity is the signed identity of a node.
type Identity struct {
	NotBefore time.Time `json:"not_before"`
	Expires   time.Time `json:"expires"`
	RenewAt   time.Time `json:"renew_at"` // when a new certificate is due
	// Name and Addresses are what the certificate requires of the node; empty: nothing.
	Name      string         `json:"name"`
	Addresses []netip.Prefix `json:"addresses"`
	CAs       []IdentityCA   `json:"cas"`
	// Epoch is the number of the key that seals packets of gossip between nodes with identities.
	Epoch uint64 `json:"epoch"`
}

// IdentityCA is a CA that a node trusts, with the list of revoked nodes of the CA that the node has.
type IdentityCA struct {
	CA          string `json:"ca"`           // its line in identity files
	ListVersion uint64 `json:"list_version"` // 0: no list
	Revoked     int    `json:"revoked"`
}

// Condition is something that is wrong with a node, or worth knowing. docs/OPERATIONS.md has a section for each code.
type Condition struct {
	Code     string    `json:"code"` // for programs; it never changes
	Severity Severity  `json:"severity"`
	Title    string    `json:"title"`  // a few words, the same for all conditions of a code
	Text     string    `json:"text"`   // what is wrong, in sentences
	Remedy   string    `json:"remedy"` // how to fix it, in sentences; empty where nothing can be done but wait
	Since    time.Time `json:"since"`
}

// Neighbors counts ARP requests and neighbor solicitations of pods by what the node did with them: answered them, sent them to
// the node that owns the address, kept them because the address is on this node, sent them to all nodes.
type Neighbors struct {
	Answered uint64 `json:"answered"`
	Directed uint64 `json:"directed"`
	Own      uint64 `json:"own"`
	Flooded  uint64 `json:"flooded"`
}

// Target is an address that the node dials until it is removed. Error is that of the last attempt, empty if it succeeded.
type Target struct {
	Addr  string `json:"addr"`
	Error string `json:"error,omitempty"`
}

// Peer is an element of the answer of GET /v1/peers.
type Peer struct {
	ID        peer.ID        `json:"id"`
	Name      string         `json:"name"`
	Addr      netip.AddrPort `json:"addr"` // of the data port
	State     PeerState      `json:"state"`
	Self      bool           `json:"self"`
	Link      Link           `json:"link"`
	Via       peer.ID        `json:"via"`
	Datapath  Datapath       `json:"datapath"`
	Carrier   Carrier        `json:"carrier"`
	Encrypted bool           `json:"encrypted"`
	Cipher    Cipher         `json:"cipher"`
	MTU       int            `json:"mtu"`
	RTT       float64        `json:"rtt_ms"` // 0 before the first measurement

	// Certificate reports whether the node was admitted by a certificate. CertificateExpires is when that expires.
	Certificate        bool      `json:"certificate,omitempty"`
	CertificateExpires time.Time `json:"certificate_expires,omitzero"`
	// Refused is why the node is not admitted any more, such as "revoked" or "expired"; empty otherwise.
	Refused string `json:"refused,omitempty"`

	// Frames of pods from and to the node, and their bytes, by whatever carrier. Kernel is the part that the kernel carried, with its probes;
	// it counts a superframe (GSO) as one frame.
	TxBytes  uint64            `json:"tx_bytes"`
	RxBytes  uint64            `json:"rx_bytes"`
	TxFrames uint64            `json:"tx_frames"`
	RxFrames uint64            `json:"rx_frames"`
	Kernel   PeerCounts        `json:"kernel"`
	Drops    map[string]uint64 `json:"drops"` // by reason
}

// PeerCounts counts frames and their bytes.
type PeerCounts struct {
	RxFrames uint64 `json:"rx_frames"`
	RxBytes  uint64 `json:"rx_bytes"`
	TxFrames uint64 `json:"tx_frames"`
	TxBytes  uint64 `json:"tx_bytes"`
}

// IPAM is the answer of GET /v1/ipam.
type IPAM struct {
	State      IPAMState   `json:"state"`
	WaitingFor string      `json:"waiting_for"`
	Ranges     []IPAMRange `json:"ranges"`
}

// IPAMRange lists the shares of the nodes in one range.
type IPAMRange struct {
	CIDR   netip.Prefix `json:"cidr"`
	Owners []IPAMOwner  `json:"owners"`
}

// IPAMOwner is the share of a node in a range, in numbers of addresses.
type IPAMOwner struct {
	ID        peer.ID `json:"id"`
	Name      string  `json:"name"`
	Addresses uint64  `json:"addresses"`
	Free      uint64  `json:"free"`
	Reachable bool    `json:"reachable"`
}

// Lease is an address in use, as in the answers of /v1/ip. Owner identifies its holder.
type Lease struct {
	Owner string       `json:"owner"`
	IP    netip.Prefix `json:"ip"` // the address, with the length of the subnet it is in
	Since time.Time    `json:"since"`
}

// Exposed is an element of the answer to an ExposeRequest.
type Exposed struct {
	Lease
	// Moved are the owners of running pods that got this address as their gateway by the request.
	Moved []string `json:"moved,omitempty"`
}

// Hidden is the answer to DELETE /v1/expose.
type Hidden struct {
	Removed []netip.Prefix `json:"removed"` // from the bridge
	// Pods are the owners of running pods that have lost their gateway and their name server by that, until the next ExposeRequest.
	Pods []string `json:"pods"`
}

// AddressRequest is the body of PUT /v1/ip: a request for the address IP, or else for an address in In, or else for an address of
// each range.
type AddressRequest struct {
	Owner string       `json:"owner"`
	In    netip.Prefix `json:"in,omitzero"`
	IP    netip.Addr   `json:"ip,omitzero"`
}

// JoinRequest is the body of PUT /v1/join: a request for the addresses of a network namespace that joins the overlay. They are
// leased to Owner; a repeated request returns the same addresses.
type JoinRequest struct {
	Owner string `json:"owner"`
	// IPs are the requested addresses: Auto, "IP" or "IP/LEN". Without any, it is Auto.
	IPs []string `json:"ips,omitempty"`
}

// Join is the answer to a JoinRequest.
type Join struct {
	Bridge    string    `json:"bridge"` // for the host end of the veth pair
	MTU       int       `json:"mtu"`
	Addresses []Address `json:"addresses"`
	// DNSDomain is the domain of the names of the network; empty: the daemon is of an older version, which knows no owner in a NameRequest.
	DNSDomain string `json:"dns_domain,omitempty"`
	// DNS reports whether the gateways answer queries for names.
	DNS bool `json:"dns,omitempty"`
}

// Address is an address on the overlay with its gateway.
type Address struct {
	Address netip.Prefix `json:"address"`
	// Gateway is this node's address on the bridge in the same family; invalid if it has none.
	Gateway netip.Addr `json:"gateway,omitzero"`
	// MAC is the hardware address that is derived from Address.
	MAC ether.Addr `json:"mac"`
}

// Admission is the body of PUT /v1/pods on the socket of weft-kube: a pod with the addresses that it is about to get. The answer
// comes when the policies that select the pod are in force for the addresses; it is an Admitted.
type Admission struct {
	Namespace string       `json:"namespace"`
	Name      string       `json:"name"`
	UID       string       `json:"uid,omitempty"`   // as the kubelet has it
	Owner     string       `json:"owner,omitempty"` // holder of the attachment at the daemon
	MAC       ether.Addr   `json:"mac,omitzero"`    // of the interface that the pod is about to get
	IPs       []netip.Addr `json:"ips"`
}

// GuardMode says what a port of the bridge may send. The empty mode stands for a default.
type GuardMode string

// Modes of the guard.
const (
	GuardOff  GuardMode = "off"  // what it likes, but not in the name of the bridge
	GuardHost GuardMode = "host" // no router advertisements, redirects and answers of DHCP servers
	GuardPods GuardMode = "pods" // only with the MAC and the addresses of its pod, and none of these
)

// ParseGuardMode reads a mode, which may be empty.
func ParseGuardMode(text string) (GuardMode, error) {
	switch m := GuardMode(text); m {
	case "", GuardOff, GuardHost, GuardPods:
		return m, nil
	}
	return "", fmt.Errorf("%q is none of %s, %s and %s", text, GuardPods, GuardHost, GuardOff)
}

// Admitted is the answer to an Admission: what the pod's annotations say about its guard.
type Admitted struct {
	// Guard is what the pod may send; empty: they say nothing about it.
	Guard GuardMode `json:"guard,omitempty"`
	// Allow are further addresses that the pod may use.
	Allow []netip.Prefix `json:"allow,omitempty"`
}

// GuardRequest is the body of PUT /v1/guard: what the port of a container may send. With a MAC it is for an interface that is about
// to be made; without one it changes the port of an existing attachment.
type GuardRequest struct {
	Owner string       `json:"owner,omitempty"` // empty without a MAC: the container that has a lease of one of IPs
	MAC   ether.Addr   `json:"mac,omitzero"`
	IPs   []netip.Addr `json:"ips,omitempty"`
	// Guard is what the port may send; empty: as the node's --guard says, or for an existing attachment as before.
	Guard GuardMode `json:"guard,omitempty"`
	// Allow are further addresses that the container may use.
	Allow []netip.Prefix `json:"allow,omitempty"`
	// Subnets are the only subnets that the port of a new interface exchanges packets with; none: all.
	Subnets []netip.Prefix `json:"subnets,omitempty"`
	// HostOnly limits what a port in subnets sends to the host to the host's own addresses.
	HostOnly bool `json:"host_only,omitempty"`
}

// GuardStatus counts the ports that are bound to the addresses of their pods, those that a request has opened, and the frames that
// were dropped, by reason.
type GuardStatus struct {
	Mode    GuardMode         `json:"mode"` // of this node: what pods may send unless a request says otherwise
	Bound   int               `json:"bound"`
	Open    int               `json:"open"`
	Dropped map[string]uint64 `json:"dropped"`
}

// AttachRequest is the body of PUT and DELETE /v1/attachments: a namespace that the daemon itself attaches to the overlay or
// detaches.
type AttachRequest struct {
	Netns  string   `json:"netns"`  // path, as the daemon sees it
	Ifname string   `json:"ifname"` // inside the namespace
	IPs    []string `json:"ips,omitempty"`
	// In are subnets of the ranges, instead of IPs: the attachment gets an address in each, and exchanges packets with these alone.
	In []netip.Prefix `json:"in,omitempty"`
	// AddIPs and RemoveIPs change the addresses of an attachment that exists, in place of IPs: "IP" or "IP/LEN". The others stay.
	AddIPs    []string `json:"add_ips,omitempty"`
	RemoveIPs []string `json:"remove_ips,omitempty"`

	Owner string `json:"owner,omitempty"` // default: made from Netns and Ifname
	// NoMulticastRoute leaves multicast to the interface that has the default route of the namespace.
	NoMulticastRoute bool `json:"no_multicast_route,omitempty"`
	// Hostname is a name below the DNS domain for the addresses until the attachment ends; empty: none.
	Hostname string `json:"hostname,omitempty"`
	// ContainerName is the name of the container in its runtime: its Hostname, where that is empty, the attachment has no name yet and
	// DNS allows it.
	ContainerName string `json:"container_name,omitempty"`
	// Guard and Allow are those of a GuardRequest.
	Guard GuardMode      `json:"guard,omitempty"`
	Allow []netip.Prefix `json:"allow,omitempty"`
}

// Attachment is the answer to an AttachRequest.
type Attachment struct {
	Owner     string    `json:"owner"`
	HostLink  string    `json:"host_link"`       // the host end of the veth pair
	Names     []string  `json:"names,omitempty"` // without the domain
	Addresses []Address `json:"addresses"`
}

// ExposeRequest is the body of PUT /v1/expose: CIDR is Auto, an address with or without a prefix length, or empty for no address.
type ExposeRequest struct {
	CIDR string `json:"cidr"`
	// Inward is what happens from now on to packets from outside the overlay; empty: as before.
	Inward InwardMode `json:"inward,omitempty"`
}

// InwardMode is what a node does with packets that it forwards from outside the overlay to pods.
type InwardMode string

// Modes of packets from outside the overlay.
const (
	InwardOff  InwardMode = "off"  // nothing: answers of pods leave by the nodes of the pods
	InwardNAT  InwardMode = "nat"  // pods see the address of this node on the overlay, and answer to it
	InwardKeep InwardMode = "keep" // pods see the address of the client, and their nodes send the answers back to this node
)

// ParseInwardMode reads a mode, which may be empty.
func ParseInwardMode(text string) (InwardMode, error) {
	switch m := InwardMode(text); m {
	case "", InwardOff, InwardNAT, InwardKeep:
		return m, nil
	}
	return "", fmt.Errorf("%q is none of %s, %s and %s", text, InwardNAT, InwardKeep, InwardOff)
}

// TargetsRequest is the body of PUT /v1/targets, which adds targets or replaces all of them, and of DELETE /v1/targets.
type TargetsRequest struct {
	Targets []string `json:"targets"`
	Replace bool     `json:"replace,omitempty"`
}

// FDBEntry is an element of the answer of GET /v1/fdb.
type FDBEntry struct {
	MAC  ether.Addr `json:"mac"`
	Peer peer.ID    `json:"peer"` // empty: on this node
	Name string     `json:"name"`
	Age  float64    `json:"age_s"`
}

// Route is an element of the answer of GET /v1/routes: the next hop to a peer. Via is zero if the peer is reached directly.
type Route struct {
	Peer peer.ID        `json:"peer"`
	Name string         `json:"name"`
	Via  peer.ID        `json:"via"`
	Addr netip.AddrPort `json:"addr"`
	Hops int            `json:"hops"`
}

// WaitResult is the answer of GET /v1/wait.
type WaitResult struct {
	Done    bool   `json:"done"`
	Missing string `json:"missing,omitempty"` // a sentence, if Done is false
}

// Name is an element of the answer of GET /v1/names: a name below the DNS domain with one of its addresses.
type Name struct {
	Name     string     `json:"name"` // without the domain
	IP       netip.Addr `json:"ip"`
	Node     peer.ID    `json:"node"` // that added the name
	NodeName string     `json:"node_name"`
	Source   NameSource `json:"source"`
	Owner    string     `json:"owner,omitempty"` // of the lease that the name belongs to, if this node added it
	Answered bool       `json:"answered"`        // false if Node is not alive
}

// NameRequest is the body of PUT and DELETE /v1/names. DELETE without IPs removes the name from all addresses of the node.
type NameRequest struct {
	Name string       `json:"name"`
	IPs  []netip.Addr `json:"ips,omitempty"`
	// Owner is the holder of the leases of IPs on this node: the name ends with them, and DELETE removes names of that owner only. Empty:
	// the name stays until DELETE, which removes names of every owner.
	Owner string `json:"owner,omitempty"`
	// External allows PUT for addresses outside the ranges of the overlay.
	External bool `json:"external,omitempty"`
}

// CaptureRequest is the query of GET /v1/capture. The answer is a stream in pcapng.
type CaptureRequest struct {
	Peer    string // ID or nickname; empty: all
	Filter  string // in the language of package capture/filter; empty: all
	Count   int    // frames until the end; 0: none
	Snaplen int    // number of bytes of each frame; 0: all
}

// Check is the result of one check of "weft doctor".
type Check struct {
	Name   string      `json:"check"`
	Result CheckResult `json:"result"`
	Detail string      `json:"detail"`
	Remedy string      `json:"mend,omitempty"` // a sentence, if Result is CheckWarn or CheckFail
}

// Report is the answer of GET /v1/report.
type Report struct {
	At         time.Time         `json:"at"`
	Status     Status            `json:"status"`
	Peers      []Peer            `json:"peers"`
	IPAM       IPAM              `json:"ipam"`
	FDB        []FDBEntry        `json:"fdb"`
	Routes     []Route           `json:"routes"`
	Leases     []Lease           `json:"leases"`
	Names      []Name            `json:"names"`
	Checks     []Check           `json:"checks"`
	Flags      map[string]string `json:"flags"` // of the daemon; for the secret file only whether it is set
	Host       Host              `json:"host"`
	Log        []string          `json:"log"` // the latest lines
	Metrics    string            `json:"metrics"`
	Goroutines string            `json:"goroutines"`
}

// Host is the part of a Report about the host.
type Host struct {
	Kernel string     `json:"kernel"`
	Arch   string     `json:"arch"`
	CPUs   int        `json:"cpus"`
	Go     string     `json:"go"`
	Links  []HostLink `json:"links"`
	Routes []string   `json:"routes"`
	Errors []string   `json:"errors,omitempty"` // of parts that could not be read
}

// HostLink is a network interface.
type HostLink struct {
	Name      string   `json:"name"`
	Kind      string   `json:"kind"`
	MTU       int      `json:"mtu"`
	Master    string   `json:"master,omitempty"` // the bridge of this port
	State     string   `json:"state"`
	Addresses []string `json:"addresses"`
}

// Reload is the answer of PUT /v1/reload: the flags that have changed.
type Reload struct {
	Applied []string `json:"applied"`
	Restart []string `json:"restart"` // flags that take effect at the next start
	Secrets int      `json:"secrets"` // number of secrets in use now
	// Encrypted reports whether the traffic between nodes is sealed now.
	Encrypted bool `json:"encrypted"`
}

// Revocations is the answer of GET /v1/revocations: the lists of revoked nodes that the node has, as lines.
type Revocations struct {
	Lists []string `json:"lists"`
}

// RevocationsRequest is the body of PUT /v1/revocations: a signed list of revoked nodes, as a line.
type RevocationsRequest struct {
	List string `json:"list"`
}

// RevocationsResult is the answer of PUT /v1/revocations: the list of the same CA that is in force now.
type RevocationsResult struct {
	Version uint64 `json:"version"`
	Nodes   int    `json:"nodes"`   // number of revoked nodes
	Adopted bool   `json:"adopted"` // false: the node had this list or a newer one
}

// ReclaimRequest is the body of PUT /v1/reclaim: dead nodes that will not return, by ID or nickname.
type ReclaimRequest struct {
	Peers []string `json:"peers"`
}

// Reclaimed is an element of the answer of PUT /v1/reclaim: the new owner of a dead node's share of a range.
type Reclaimed struct {
	Peer        peer.ID      `json:"peer"`
	Name        string       `json:"name"`
	Range       netip.Prefix `json:"range"`
	GivenTo     peer.ID      `json:"given_to"` // empty if the node owned nothing
	GivenToName string       `json:"given_to_name"`
	Addresses   uint64       `json:"addresses"`
}

// LeaveResult is the answer of PUT /v1/leave.
type LeaveResult struct {
	Released int     `json:"released"` // number of leases that ended
	GivenTo  peer.ID `json:"given_to"` // the new owner of this node's address space; empty if it owned none
	Name     string  `json:"name"`     // of GivenTo
}

// ParseAllowed reads a further address of a guarded pod: an address or a prefix.
func ParseAllowed(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		a, addrErr := netip.ParseAddr(text)
		if addrErr != nil {
			return netip.Prefix{}, fmt.Errorf("%q is neither an address nor a prefix", text)
		}
		p = netip.PrefixFrom(a.WithZone(""), a.BitLen())
	}
	if p.Addr().Is4In6() || p.Addr().IsMulticast() {
		return netip.Prefix{}, fmt.Errorf("%q is no address of a pod", text)
	}
	return p.Masked(), nil
}
