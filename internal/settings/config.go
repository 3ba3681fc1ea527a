package settings

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"time"

	"weft/internal/api"
	"weft/internal/hint"
	"weft/internal/hostnet"
	"weft/internal/identity"
	"weft/internal/secret"
	"weft/internal/target"
	"weft/router/carrier"
	"weft/router/carrier/direct"
	"weft/router/carrier/wireguard"
	"weft/router/session"
	"weft/router/wire"
)

// Default values of a Config that are not its zero values.
const (
	DefaultStateDir = "/var/lib/weft"
	DefaultBridge   = "weave"
	DefaultTap      = "weft0"
	DefaultPort     = 6783
	DefaultRange    = "10.32.0.0/12"
	DefaultHTTPAddr = "127.0.0.1:6782"
	// DefaultBroadcastLimit is far above what hosts send that look for a hundred others at once.
	DefaultBroadcastLimit = 500
	// DefaultPeerMetrics keeps the metrics of a network below a quarter of a million series.
	DefaultPeerMetrics = 100
	DefaultSocket      = api.DefaultSocket
	DefaultDNSDomain   = api.DefaultDNSDomain
	DefaultLeaseGrace  = 5 * time.Minute
)

// BootstrapFromPeers as Config.InitPeers means one node more than there are PEERs.
const BootstrapFromPeers = -1

// Values of flags that are not names of something else.
const (
	CipherAuto        = "auto"
	DatapathAuto      = "auto"
	DirectRoutingOff  = "off"
	DirectRoutingAuto = "auto"
	DatapathUserspace = string(api.DatapathUserspace)
	DatapathKernel    = string(api.DatapathKernel)
	OffloadAuto       = "auto"
	OffloadOff        = "off"

	DSCPNone           = "none"
	DSCPCopy           = "copy"
	AESAuto            = "auto"
	AESStandard        = "standard"
	SourcePortsAuto    = "auto"
	SourcePortsFlow    = "flow"
	SourcePortsOne     = "one"
	BusyPollOff        = "off"
	BusyPollAuto       = "auto"
	SourceCheckOff     = "off"
	SourceCheckLog     = "log"
	SourceCheckEnforce = "enforce"
)

// Config is everything an operator can configure with "weft up"; each field is the flag of the same name.
type Config struct {
	Version   string // of this program, shown in the status; not a flag
	Name      string
	StateDir  string
	Socket    string
	Bridge    string
	Tap       string
	Port      int // of gossip; data uses Port+1, the kernel's VXLAN Port+2
	Advertise netip.Addr
	Ranges    []netip.Prefix
	InitPeers int // BootstrapFromPeers, 0 for an observer, or how many nodes must meet before the range is first divided
	Peers     []string

	SecretFile     string
	WatchSecret    bool   // reload when the content of SecretFile, IdentityFile or IdentityCAFile changes
	Plain          bool   // run without protection although this node has had some
	IdentityFile   string // certificate and CAs; empty: none
	IdentityCAFile string // CAs instead of those in IdentityFile; empty: those
	Cipher         string
	TrustedSubnets []netip.Prefix
	Datapath       string
	Carriers       []string // those of the kernel that may be used; empty: all
	DirectRouting  string   // empty: DirectRoutingOff
	// WireGuardDevice is the name of a device of WireGuard that exists, and belongs to this node; empty: the node makes one.
	WireGuardDevice string
	// HasWireGuard reports whether this host has WireGuard; not a flag.
	HasWireGuard bool
	Offload      string
	DSCP         string // empty: DSCPNone
	AES          string // empty: AESAuto
	SourcePorts  string // empty: SourcePortsAuto
	BusyPoll     string // empty: BusyPollOff
	MTU          int    // 0: from the underlay
	Queues       int    // 0: number of CPUs, at most MaxQueues

	NoDiscovery  bool
	NoMasquerade bool
	NoARPProxy   bool
	SourceCheck  string        // empty: SourceCheckLog
	Guard        api.GuardMode // what pods may send; empty: api.GuardHost
	NoDNS        bool
	DNSDomain    string        // of names; empty: DefaultDNSDomain
	TakeOver     bool          // waits while another daemon with this flag runs on the host
	LeaseGrace   time.Duration // how long the interfaces of an attachment may be missing before its lease ends; 0: DefaultLeaseGrace
	AllowOverlap bool
	HTTPAddr     string // empty: no HTTP
	// BroadcastLimit is how many broadcasts each pod sends a second; 0: any number.
	BroadcastLimit int
	PeerMetrics    int // the highest number of live peers that have metrics of their own

	LogLevel  slog.Level // of the logger, which exists before the node
	LogFormat string
}

// Domain returns the domain of names.
func (c *Config) Domain() string { return cmp.Or(c.DNSDomain, DefaultDNSDomain) }

// manyQueues is the number of queues from which SourcePortsAuto is SourcePortsFlow: with two, measured, several flows cost more CPU time.
const manyQueues = 4

// EntropyPorts returns the number of ports besides the data port from which flows leave, with Queues set.
func (c *Config) EntropyPorts() int {
	if c.Queues > 1 && (c.SourcePorts == SourcePortsFlow || c.SourcePorts != SourcePortsOne && c.Queues >= manyQueues) {
		return c.Queues
	}
	return 0
}

// DataPort returns the UDP port of the data sockets.
func (c *Config) DataPort() uint16 { return uint16(c.Port + 1) }

// KernelPort returns the UDP port of the kernel's VXLAN.
func (c *Config) KernelPort() uint16 { return uint16(c.Port + 2) }

// KernelDevice returns the name of the VXLAN device. It contains the port, as only one device can use a port.
func (c *Config) KernelDevice() string { return fmt.Sprintf("weftvx%d", c.KernelPort()) }

// TunnelPort returns the UDP port of WireGuard, and TunneledPort that of VXLAN in its tunnels.
func (c *Config) TunnelPort() uint16 { return uint16(c.Port + 3) }

// TunneledPort returns the UDP port of VXLAN in the tunnels of WireGuard.
func (c *Config) TunneledPort() uint16 { return uint16(c.Port + 4) }

// TunnelDevice returns the name of the device of WireGuard.
func (c *Config) TunnelDevice() string {
	return cmp.Or(c.WireGuardDevice, fmt.Sprintf("weftwg%d", c.TunnelPort()))
}

// TunneledDevice returns the name of the VXLAN device in the tunnels of WireGuard.
func (c *Config) TunneledDevice() string { return fmt.Sprintf("weftwx%d", c.TunneledPort()) }

// OpenPorts returns the ports that other nodes reach this one by. sealed says that frames are sealed unless the subnet is trusted.
func (c *Config) OpenPorts(sealed bool) (tcp, udp []uint16) {
	tcp, udp = []uint16{uint16(c.Port)}, []uint16{c.DataPort(), uint16(c.Port)}
	if c.WantsKernelPath(sealed, c.TrustedSubnets) {
		udp = append(udp, c.KernelPort())
	}
	if c.WantsTunnels(sealed) {
		udp = append(udp, c.TunnelPort())
	}
	return tcp, udp
}

// BootstrapNodes returns how many nodes must meet before the range is first divided; 0 for an observer.
func (c *Config) BootstrapNodes() int {
	if c.InitPeers == BootstrapFromPeers {
		return min(1+len(c.Peers), api.MaxInitPeers)
	}
	return c.InitPeers
}

// LazyBootstrap reports whether the node knows neither a peer nor a number of nodes. Such a node divides the range alone, but
// not before the first address is needed, so that "weft up" on two hosts and "weft connect" on one of them makes one cluster.
func (c *Config) LazyBootstrap() bool { return c.InitPeers == BootstrapFromPeers && len(c.Peers) == 0 }

// HasIPv4 and HasIPv6 report whether pods get addresses of the family.
func (c *Config) HasIPv4() bool {
	return slices.ContainsFunc(c.Ranges, func(r netip.Prefix) bool { return r.Addr().Is4() })
}

// HasIPv6 reports whether pods get IPv6 addresses.
func (c *Config) HasIPv6() bool {
	return slices.ContainsFunc(c.Ranges, func(r netip.Prefix) bool { return r.Addr().Is6() })
}

// RangeOf returns the range that contains an address; an invalid one where none does.
func (c *Config) RangeOf(a netip.Addr) netip.Prefix {
	for _, r := range c.Ranges {
		if r.Contains(a) {
			return r
		}
	}
	return netip.Prefix{}
}

// InRanges reports whether a range contains an address.
func (c *Config) InRanges(a netip.Addr) bool { return c.RangeOf(a).IsValid() }

// Offer returns the ciphers that this node would use.
func (c *Config) Offer() session.Offer {
	only := session.Cipher(0)
	for _, cipher := range []session.Cipher{session.AES256GCM, session.ChaCha20Poly1305} {
		if c.Cipher == cipher.String() {
			only = cipher
		}
	}
	return session.NewOffer(only, session.FastAES())
}

// WantsKernelPath reports whether the kernel could carry frames of any peer. It never carries frames that must be sealed, so
// a node with a secret needs trusted subnets for it.
func (c *Config) WantsKernelPath(sealed bool, trusted []netip.Prefix) bool {
	return c.mayUse(carrier.VXLAN) && (!sealed || len(trusted) > 0)
}

// mayUse reports whether the operator allows a carrier of the kernel.
func (c *Config) mayUse(kind carrier.Kind) bool {
	return c.Datapath != DatapathUserspace && (len(c.Carriers) == 0 || slices.Contains(c.Carriers, string(kind)))
}

// AllowsTunnels reports whether WireGuard may carry frames that must be sealed, where the host has it: it has one cipher, and the kernel
// drops no frame for its source address.
func (c *Config) AllowsTunnels(sealed bool) bool {
	return sealed && c.mayUse(carrier.WireGuard) && c.SourceCheck != SourceCheckEnforce &&
		(c.Cipher == CipherAuto || c.Cipher == session.ChaCha20Poly1305.String())
}

// WantsDirect reports whether frames that need no seal may be routed to peers on the same link.
func (c *Config) WantsDirect(sealed bool, trusted []netip.Prefix) bool {
	return c.DirectRouting == DirectRoutingAuto && c.mayUse(carrier.Direct) && (!sealed || len(trusted) > 0)
}

// DirectPort returns the name of the hidden port of the bridge for the probes of direct routing.
func (c *Config) DirectPort() string { return direct.PortName(c.DirectTable()) }

// DirectTable returns the number of the routing table of direct routing.
func (c *Config) DirectTable() uint16 { return uint16(c.Port) }

// DirectGroup returns the log group of netfilter for its probes. Policies in Kubernetes have the groups 6781 and 6783.
func (c *Config) DirectGroup() uint16 {
	if group := uint16(c.Port + 1); !slices.Contains(policiesGroups, group) {
		return group
	}
	return uint16(c.Port)
}

// PairGroup returns the log group of netfilter for the beginnings of pairs of the kernel path.
func (c *Config) PairGroup() uint16 {
	if group := uint16(c.Port) ^ 1<<15; !slices.Contains(policiesGroups, group) {
		return group
	}
	return uint16(c.Port) ^ 1<<14
}

// policiesGroups are the log groups of package kube/firewall.
var policiesGroups = []uint16{6781, 6783}

// WantsTunnels reports whether WireGuard could carry frames of any peer.
func (c *Config) WantsTunnels(sealed bool) bool { return c.HasWireGuard && c.AllowsTunnels(sealed) }

// Targets returns the PEERs. Those that Validate would refuse are left out.
func (c *Config) Targets() []target.Target {
	targets := make([]target.Target, 0, len(c.Peers))
	for _, p := range c.Peers {
		if t, err := target.Parse(p, uint16(c.Port)); err == nil {
			targets = append(targets, t)
		}
	}
	return targets
}

// ProtectedBy returns the file that protects this node's traffic; empty: none does.
func (c *Config) ProtectedBy() string { return cmp.Or(c.SecretFile, c.IdentityFile) }

// Protected reports whether this node's traffic is sealed.
func (c *Config) Protected() bool { return c.ProtectedBy() != "" }

// LoadSecrets reads the secret file; without one there are no secrets. Errors are *hint.Error.
func (c *Config) LoadSecrets() ([]secret.Secret, error) {
	if c.SecretFile == "" {
		return nil, nil
	}
	return secret.ReadFile(c.SecretFile)
}

// maxIdentityFile is the size in bytes of the largest identity file.
const maxIdentityFile = 64 << 10

// LoadIdentity reads the identity file; without one it returns the zero File. Errors are *hint.Error.
func (c *Config) LoadIdentity() (identity.File, error) {
	if c.IdentityFile == "" {
		return identity.File{}, nil
	}
	text, err := readIdentityFile(c.IdentityFile)
	if err != nil {
		return identity.File{}, hint.Refuse("--identity", "Name the file that \"weft ca sign\" has printed for this node.", "%w", err)
	}
	f, err := identity.ParseFile(text)
	if err != nil {
		return identity.File{}, hint.Refuse("--identity", "Copy the whole output of \"weft ca sign\" into it.", "%s: %w", c.IdentityFile, err)
	}
	if c.IdentityCAFile == "" {
		return f, nil
	}
	if text, err = readIdentityFile(c.IdentityCAFile); err == nil {
		f.CAs, err = identity.ParseCAs(text)
	}
	if err != nil {
		return identity.File{}, hint.Refuse("--identity-ca", "Name the file ca.pub that \"weft ca init\" has written.", "%w", err)
	}
	return f, nil
}

func readIdentityFile(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err == nil && len(text) > maxIdentityFile {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxIdentityFile)
	}
	return string(text), err
}

// WatchedFiles returns the files on which the credentials of the node depend.
func (c *Config) WatchedFiles() []string {
	return slices.DeleteFunc([]string{c.SecretFile, c.IdentityFile, c.IdentityCAFile}, func(path string) bool { return path == "" })
}

// Sealed reports whether the traffic between nodes is sealed.
func (c *Config) Sealed() bool { return c.SecretFile != "" || c.IdentityFile != "" }

// AdvertiseAddr returns the address that the other nodes learn: the configured one, else the one that hostnet finds. Where the
// host has none, the error is a *hint.Error.
func (c *Config) AdvertiseAddr(ctx context.Context) (netip.Addr, error) {
	if c.Advertise.IsValid() {
		return c.Advertise.Unmap(), nil
	}
	a, err := hostnet.AdvertiseAddr(ctx, c.Targets(), hostnet.Skip{Bridge: c.Bridge, Ranges: c.Ranges})
	if errors.Is(err, hostnet.ErrNoAddress) {
		return a, hint.Refuse("--advertise", "Give the address at which the other nodes reach this one.", "%w", err)
	}
	return a, err
}

// OverlayMTU returns the MTU in bytes of the bridge and the pods: the configured one, else what the MTU of the interface with
// the address self leaves, with room for the tag of sealed datagrams where sealed is set.
func (c *Config) OverlayMTU(self netip.Addr, sealed bool) (int, error) {
	underlay, err := hostnet.UnderlayMTU(self)
	if err != nil {
		return 0, err
	}
	return c.OverlayMTUOn(underlay, self, sealed), nil
}

// OverlayMTUOn is OverlayMTU for an interface with an MTU of underlay bytes.
func (c *Config) OverlayMTUOn(underlay int, self netip.Addr, sealed bool) int {
	if c.MTU != 0 {
		return c.MTU
	}
	mtu := wire.MTU(underlay, sealed, self.Is6())
	if c.WantsTunnels(sealed) {
		mtu = min(mtu, wireguard.MTU(underlay, self.Is6()))
	}
	return mtu
}

// MinOverlayMTU returns the least MTU in bytes that pods need: IPv6 requires 1280 (RFC 8200, section 5).
func (c *Config) MinOverlayMTU() int {
	if c.HasIPv6() {
		return minMTU6
	}
	return minMTU
}
