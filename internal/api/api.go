// Package api is the node daemon's interface on its unix socket: the documents it exchanges, and a client for them.
//
// The resources are HTTP under /v1, the bodies JSON. Fields may be added; a reader ignores those it does not know.
package api

import (
	"net/netip"
	"time"

	"weft/internal/ether"
	"weft/internal/peer"
)

// DefaultSocket is where the daemon listens when nothing else is said.
const DefaultSocket = "/run/weft/weft.sock"

// SocketEnv names the environment variable that says where the daemon listens.
const SocketEnv = "WEFT_SOCKET"

// Auto in place of an address asks the daemon to choose one.
const Auto = "auto"

// Status is the answer of GET /v1/status: the whole node at a glance.
type Status struct {
	Version string  `json:"version"`
	ID      peer.ID `json:"id"`
	Name    string  `json:"name"`
	// Ready says that a pod could join now.
	Ready bool           `json:"ready"`
	Range []netip.Prefix `json:"range"`
	// Bridge and Tap are names of network interfaces, MTU is what pods get.
	Bridge    string         `json:"bridge"`
	Tap       string         `json:"tap"`
	MTU       int            `json:"mtu"`
	Advertise netip.AddrPort `json:"advertise"`
	Encrypted bool           `json:"encrypted"`
	// Secrets counts the lines of the secret file; Droppable says that no node alive needs those after the first.
	Secrets   int      `json:"secrets"`
	Droppable bool     `json:"secrets_droppable"`
	Datapath  Datapath `json:"datapath"`
	Offload   []string `json:"offload"`
	Queues    int      `json:"queues"`
	// Peers counts members by state, this node among them.
	Peers   map[PeerState]int `json:"peers"`
	Targets []Target          `json:"targets"`
	IPAM    IPAMState         `json:"ipam"`
	// GarbageFreed counts leases that ended as their attachment was gone.
	GarbageFreed uint64            `json:"garbage_freed"`
	Exposed      []netip.Prefix    `json:"exposed"`
	FDB          int               `json:"fdb"`
	Drops        map[string]uint64 `json:"drops"`
	// Relayed counts datagrams passed on between other nodes.
	Relayed   uint64    `json:"relayed"`
	Neighbors Neighbors `json:"neighbors"`
	Since     time.Time `json:"since"`
	// Conditions say what is wrong, the most severe first.
	Conditions []Condition `json:"conditions"`
	// Warnings are the same as sentences: for each condition its text and its remedy.
	Warnings []string `json:"warnings"`
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

// Neighbors counts what became of ARP requests and neighbour solicitations of pods: answered by this node, sent to the one
// that gives out the address, for an address of this node's own, sent to all.
type Neighbors struct {
	Answered uint64 `json:"answered"`
	Directed uint64 `json:"directed"`
	Own      uint64 `json:"own"`
	Flooded  uint64 `json:"flooded"`
}

// Target is an address that is dialled for ever, and why it was not reached last time.
type Target struct {
	Addr  string `json:"addr"`
	Error string `json:"error,omitempty"`
}

// Peer is an element of the answer of GET /v1/peers.
type Peer struct {
	ID        peer.ID        `json:"id"`
	Name      string         `json:"name"`
	Addr      netip.AddrPort `json:"addr"` // of the data plane
	State     PeerState      `json:"state"`
	Self      bool           `json:"self"`
	Link      Link           `json:"link"`
	Via       peer.ID        `json:"via"`
	Datapath  Datapath       `json:"datapath"`
	Encrypted bool           `json:"encrypted"`
	Cipher    Cipher         `json:"cipher"`
	MTU       int            `json:"mtu"`
	RTT       float64        `json:"rtt_ms"` // 0 before the first measurement

	TxBytes  uint64            `json:"tx_bytes"`
	RxBytes  uint64            `json:"rx_bytes"`
	TxFrames uint64            `json:"tx_frames"`
	RxFrames uint64            `json:"rx_frames"`
	Drops    map[string]uint64 `json:"drops"` // by reason
}

// IPAM is the answer of GET /v1/ipam.
type IPAM struct {
	State      IPAMState   `json:"state"`
	WaitingFor string      `json:"waiting_for"`
	Ranges     []IPAMRange `json:"ranges"`
}

// IPAMRange says who owns how much of one range.
type IPAMRange struct {
	CIDR   netip.Prefix `json:"cidr"`
	Owners []IPAMOwner  `json:"owners"`
}

// IPAMOwner is a node's share of a range.
type IPAMOwner struct {
	ID        peer.ID `json:"id"`
	Name      string  `json:"name"`
	Addresses uint64  `json:"addresses"`
	Free      uint64  `json:"free"`
	Reachable bool    `json:"reachable"`
}

// Lease is an address in use, as in the answers of /v1/ip.
type Lease struct {
	Owner string       `json:"owner"`
	IP    netip.Prefix `json:"ip"` // the address, with the length of the subnet it is in
	Since time.Time    `json:"since"`
}

// AddressRequest is the body of PUT /v1/ip: an address for an owner, a given one where IP is set, else one inside In
// where that is set, else one of each range.
type AddressRequest struct {
	Owner string       `json:"owner"`
	In    netip.Prefix `json:"in,omitzero"`
	IP    netip.Addr   `json:"ip,omitzero"`
}

// JoinRequest is the body of PUT /v1/join: what a network namespace needs to join the overlay. The addresses are
// leased to Owner; asking again gives the same.
type JoinRequest struct {
	Owner string `json:"owner"`
	// IPs are addresses to have: Auto, "IP" or "IP/LEN". None means Auto.
	IPs []string `json:"ips,omitempty"`
}

// Join is the answer to a JoinRequest.
type Join struct {
	Bridge    string    `json:"bridge"` // the bridge that the host end of the veth pair goes to
	MTU       int       `json:"mtu"`
	Addresses []Address `json:"addresses"`
}

// Address is an address on the overlay and the way out of it.
type Address struct {
	Address netip.Prefix `json:"address"`
	// Gateway is this node's own address on the bridge in the same family.
	Gateway netip.Addr `json:"gateway,omitzero"`
	// MAC is the hardware address that goes with Address.
	MAC ether.Addr `json:"mac"`
}

// Admission is the body of PUT /v1/pods on the socket of weft-kube: a pod that is about to have addresses. The answer comes once
// the policies that select it are in force for them.
type Admission struct {
	Namespace string       `json:"namespace"`
	Name      string       `json:"name"`
	UID       string       `json:"uid,omitempty"` // as the kubelet knows it
	IPs       []netip.Addr `json:"ips"`
}

// AttachRequest is the body of PUT and DELETE /v1/attachments: a namespace that the daemon itself joins or takes out.
type AttachRequest struct {
	Netns  string   `json:"netns"`  // path, as the daemon sees it
	Ifname string   `json:"ifname"` // inside the namespace
	IPs    []string `json:"ips,omitempty"`
	Owner  string   `json:"owner,omitempty"` // default: made from Netns and Ifname
	// Hostname is a name in .weft.local that the addresses get until the attachment ends; empty: none.
	Hostname string `json:"hostname,omitempty"`
}

// Attachment is the answer to an AttachRequest.
type Attachment struct {
	Owner     string    `json:"owner"`
	HostLink  string    `json:"host_link"` // the host end of the veth pair
	Addresses []Address `json:"addresses"`
}

// ExposeRequest is the body of PUT /v1/expose: CIDR is Auto or an address with a prefix length.
type ExposeRequest struct {
	CIDR string `json:"cidr"`
}

// TargetsRequest is the body of PUT (add, or replace) and DELETE /v1/targets.
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

// Route is an element of the answer of GET /v1/routes: the next hop to a peer.
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
	Missing string `json:"missing,omitempty"` // a sentence where Done is false
}

// Name is an element of the answer of GET /v1/names: a name in .weft.local and an address of it.
type Name struct {
	Name     string     `json:"name"` // without the domain
	IP       netip.Addr `json:"ip"`
	Node     peer.ID    `json:"node"` // that has given it
	NodeName string     `json:"node_name"`
	Owner    string     `json:"owner,omitempty"` // of the lease that it goes with, where this node has given it
	Answered bool       `json:"answered"`        // not where Node is not alive
}

// NameRequest is the body of PUT and DELETE /v1/names; without IPs, DELETE takes the name from all addresses of the node.
type NameRequest struct {
	Name string       `json:"name"`
	IPs  []netip.Addr `json:"ips,omitempty"`
}

// CaptureRequest is the query of GET /v1/capture, whose answer is a stream in pcapng.
type CaptureRequest struct {
	Peer    string // ID or nickname; empty: all
	Filter  string // in the language of package filter; empty: all
	Count   int    // frames until the end; 0: none
	Snaplen int    // bytes of each frame; 0: all
}

// Check is what one of the looks of "weft doctor" at a host has found.
type Check struct {
	Name   string      `json:"check"`
	Result CheckResult `json:"result"`
	Detail string      `json:"detail"`
	Remedy string      `json:"mend,omitempty"` // a sentence, where Result is CheckWarn or CheckFail
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
	Flags      map[string]string `json:"flags"` // of the daemon; of the secret file only whether there is one
	Host       Host              `json:"host"`
	Log        []string          `json:"log"` // the latest lines
	Metrics    string            `json:"metrics"`
	Goroutines string            `json:"goroutines"`
}

// Host is what a Report says of the host.
type Host struct {
	Kernel string     `json:"kernel"`
	Arch   string     `json:"arch"`
	CPUs   int        `json:"cpus"`
	Go     string     `json:"go"`
	Links  []HostLink `json:"links"`
	Routes []string   `json:"routes"`
	Errors []string   `json:"errors,omitempty"` // why something could not be read
}

// HostLink is a network interface.
type HostLink struct {
	Name      string   `json:"name"`
	Kind      string   `json:"kind"`
	MTU       int      `json:"mtu"`
	Master    string   `json:"master,omitempty"` // the bridge that it is a port of
	State     string   `json:"state"`
	Addresses []string `json:"addresses"`
}

// Reload is the answer of PUT /v1/reload: what has changed since, by flag.
type Reload struct {
	Applied []string `json:"applied"`
	Restart []string `json:"restart"` // takes effect at the next start
	Secrets int      `json:"secrets"` // that are in use now
}

// ReclaimRequest is the body of PUT /v1/reclaim: nodes that are gone for good, by ID or nickname.
type ReclaimRequest struct {
	Peers []string `json:"peers"`
}

// Reclaimed is an element of the answer of PUT /v1/reclaim: what became of what a node owned of a range.
type Reclaimed struct {
	Peer        peer.ID      `json:"peer"`
	Name        string       `json:"name"`
	Range       netip.Prefix `json:"range"`
	GivenTo     peer.ID      `json:"given_to"` // empty if there was nothing, or nothing any more
	GivenToName string       `json:"given_to_name"`
	Addresses   uint64       `json:"addresses"`
}

// LeaveResult is the answer of PUT /v1/leave.
type LeaveResult struct {
	Released int     `json:"released"` // leases that ended
	GivenTo  peer.ID `json:"given_to"` // who has this node's address space now; empty if it had none
	Name     string  `json:"name"`     // of GivenTo
}
