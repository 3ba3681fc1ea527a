package daemon

import (
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"weft/internal/api"
	"weft/mesh"
	"weft/router/session"
)

// Default values of a Config that are not its zero values.
const (
	DefaultStateDir = "/var/lib/weft"
	DefaultBridge   = "weave"
	DefaultTap      = "weft0"
	DefaultPort     = 6783
	DefaultRange    = "10.32.0.0/12"
	DefaultHTTPAddr = "127.0.0.1:6782"
	DefaultSocket   = api.DefaultSocket
)

// clusterName is the name of the network: nodes of another one are strangers.
const clusterName = "weft"

// Limits of what an operator may ask for.
const (
	minMTU    = 576
	minMTU6   = 1280
	maxMTU    = 65521 // what a TAP takes
	maxQueues = 8
	maxRanges = 16
	ifnameLen = 15 // IFNAMSIZ - 1
)

// FoundersFromPeers as InitPeers means one more than there are PEERs.
const FoundersFromPeers = -1

// Config is everything an operator can say to "weft up"; each field is the flag of the same name.
type Config struct {
	Version   string // of this program, shown in the status
	Name      string
	StateDir  string
	Socket    string
	Bridge    string
	Tap       string
	Port      int // of gossip; data is on Port+1
	Advertise netip.Addr
	Ranges    []netip.Prefix
	InitPeers int // FoundersFromPeers, 0 for an observer, or how many founders must meet
	Peers     []string

	SecretFile     string
	Cipher         string
	TrustedSubnets []netip.Prefix
	Datapath       string
	Offload        string
	MTU            int // 0: from the underlay
	Queues         int // 0: number of CPUs, at most 8

	NoDiscovery  bool
	NoMasquerade bool
	NoARPProxy   bool
	NoDNS        bool
	TakeOver     bool          // waits for a daemon that runs already
	LeaseGrace   time.Duration // how long the pair of an attachment may be gone until its lease ends; 0 for DefaultLeaseGrace
	AllowOverlap bool
	HTTPAddr     string // empty: no HTTP

	LogLevel  slog.Level // of Program.Log, which is made before the node
	LogFormat string
}

// Validate says which flag is wrong and why, without a look at the host.
func (c *Config) Validate() error {
	checks := []func() error{
		c.validateNames, c.validatePorts, c.validateRanges, c.validateModes, c.validateSizes, c.validatePeers,
	}
	for _, check := range checks {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (c *Config) validateNames() error {
	switch {
	case c.Name == "" || len(c.Name) > 255 || !utf8.ValidString(c.Name):
		return refuse("--name", "Give the node a name of 1 to 255 bytes, such as its host name.", "%q is no name", c.Name)
	case c.StateDir == "":
		return refuse("--state-dir", "Name a folder, such as "+DefaultStateDir+".", "it is empty")
	case c.Socket == "" || len(c.Socket) > 107:
		return refuse("--socket", "Name a path of at most 107 bytes, such as "+DefaultSocket+".", "%q cannot be a unix socket", c.Socket)
	case !validIfname(c.Bridge):
		return refuse("--bridge", "An interface name has 1 to 15 characters, without spaces and slashes.", "%q is no interface name", c.Bridge)
	case !validIfname(c.Tap) || c.Tap == c.Bridge:
		return refuse("--tap", "An interface name has 1 to 15 characters, without spaces and slashes, and is not the bridge's.",
			"%q is no name for the TAP", c.Tap)
	}
	return nil
}

func validIfname(s string) bool {
	return s != "" && len(s) <= ifnameLen && s != "." && s != ".." && !strings.ContainsAny(s, "/: \t\n%")
}

func (c *Config) validatePorts() error {
	if c.Port < 1 || c.Port > 65533 {
		return refuse("--port", "Choose a port from 1 to 65533: data uses the next one, kernel VXLAN the one after it.",
			"%d is out of range", c.Port)
	}
	if c.HTTPAddr == "" {
		return nil
	}
	if _, err := netip.ParseAddrPort(c.HTTPAddr); err != nil {
		return refuse("--http-addr", "Give an IP address and a port, such as "+DefaultHTTPAddr+", or nothing to turn it off.", "%w", err)
	}
	return nil
}

func (c *Config) validateRanges() error {
	if len(c.Ranges) == 0 || len(c.Ranges) > maxRanges {
		return refuse("--range", "Give one range, such as "+DefaultRange+", or one a family.", "%d ranges", len(c.Ranges))
	}
	for i, r := range c.Ranges {
		if r != r.Masked() {
			return refuse("--range", "Write "+r.Masked().String()+".", "%s has bits set behind its prefix", r)
		}
		if free := r.Addr().BitLen() - r.Bits(); free < 2 {
			return refuse("--range", "Choose a larger range: it must hold at least 4 addresses.", "%s is too small", r)
		}
		if a := r.Addr(); a.IsMulticast() || a.IsLoopback() || a.IsLinkLocalUnicast() || r.Bits() == 0 {
			return refuse("--range", "Choose a private range, such as "+DefaultRange+".", "%s is not for pods", r)
		}
		for _, other := range c.Ranges[:i] {
			if r.Overlaps(other) {
				return refuse("--range", "Give ranges that do not overlap.", "%s overlaps %s", r, other)
			}
		}
	}
	return nil
}

// validateModes refuses what this version does not know.
func (c *Config) validateModes() error {
	for _, m := range []struct {
		flag, value string
		known       []string
	}{
		{"--cipher", c.Cipher, []string{cipherAuto, session.AES256GCM.String(), session.ChaCha20Poly1305.String()}},
		{"--datapath", c.Datapath, []string{datapathAuto, datapathUserspace, datapathKernel}},
		{"--offload", c.Offload, []string{"auto", offloadOff}},
	} {
		if !slices.Contains(m.known, m.value) {
			return refuse(m.flag, "Choose one of "+strings.Join(m.known, ", ")+".", "%q is unknown", m.value)
		}
	}
	return nil
}

// cipherAuto leaves the choice of a cipher to both ends.
const cipherAuto = "auto"

// offer returns the ciphers that this node would use.
func (c *Config) offer() session.Offer {
	only := session.Cipher(0)
	for _, cipher := range []session.Cipher{session.AES256GCM, session.ChaCha20Poly1305} {
		if c.Cipher == cipher.String() {
			only = cipher
		}
	}
	return session.NewOffer(only, session.FastAES())
}

func (c *Config) validateSizes() error {
	switch {
	case c.MTU != 0 && (c.MTU < minMTU || c.MTU > maxMTU):
		return refuse("--mtu", "Choose 576 to 65521, or 0 to take it from the underlay.", "%d is out of range", c.MTU)
	case c.MTU != 0 && c.MTU < minMTU6 && c.hasIPv6():
		return refuse("--mtu", "Choose 1280 or more: IPv6 needs it (RFC 8200).", "%d is too small for an IPv6 range", c.MTU)
	case c.Queues < 0 || c.Queues > maxQueues:
		return refuse("--queues", "Choose 1 to 8, or 0 for one a CPU.", "%d is out of range", c.Queues)
	case c.InitPeers < FoundersFromPeers || c.InitPeers > api.MaxInitPeers:
		return refuse("--init-peers", "Choose how many bootstrap nodes must meet, at most 2048, or 0 for a node that never divides a range.",
			"%d is out of range", c.InitPeers)
	case c.LeaseGrace < 0:
		return refuse("--lease-grace", "Give a time such as 5m.", "%s is no grace", c.LeaseGrace)
	case c.Advertise.IsValid() && (c.Advertise.IsUnspecified() || c.Advertise.IsMulticast()):
		return refuse("--advertise", "Give the address at which the other nodes reach this one.", "%s is no node's address", c.Advertise)
	}
	return nil
}

// hasIPv6 reports whether pods get IPv6 addresses.
func (c *Config) hasIPv6() bool {
	return slices.ContainsFunc(c.Ranges, func(r netip.Prefix) bool { return r.Addr().Is6() })
}

func (c *Config) validatePeers() error {
	for _, p := range c.Peers {
		if _, err := mesh.ParseTarget(p, uint16(c.Port)); err != nil {
			return refuse("PEER", "A peer is HOST or HOST:PORT, with an IPv6 address in brackets.", "%w", errors.Unwrap(err))
		}
	}
	return nil
}

// founders returns how many founding nodes must meet.
func (c *Config) founders() int {
	if c.InitPeers == FoundersFromPeers {
		return min(1+len(c.Peers), api.MaxInitPeers)
	}
	return c.InitPeers
}

// lone reports whether the node was told of nobody and of no number: it founds alone, but not before it has to, so
// that "weft up" on two hosts and "weft connect" on one of them makes one network.
func (c *Config) lone() bool { return c.InitPeers == FoundersFromPeers && len(c.Peers) == 0 }
