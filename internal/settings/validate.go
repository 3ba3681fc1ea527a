package settings

import (
	"cmp"
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"weft/internal/api"
	"weft/internal/hint"
	"weft/internal/hostnet"
	"weft/internal/suggest"
	"weft/internal/target"
	"weft/internal/usage"
	"weft/router/carrier"
	"weft/router/session"
)

// MaxQueues is the largest number of TAP queues.
const MaxQueues = 8

// Limits of what an operator can configure.
const (
	minMTU        = 576
	minMTU6       = 1280
	maxRanges     = 16
	maxNameLen    = 255   // bytes, of a node's name
	maxDomainLen  = 52    // bytes: with a name of 200 and the dot between them it has the 253 of DNS (RFC 1035, 2.3.4)
	maxLabelLen   = 63    // bytes (RFC 1035, 2.3.4)
	maxSocketLen  = 107   // bytes: sun_path of unix(7) less its terminating zero
	maxPort       = 65531 // four more ports follow the gossip port
	ifnameLen     = 15    // IFNAMSIZ - 1
	minRangeBits  = 2     // of host addresses: a range holds at least 4
	ifnameAdvice  = "An interface name has 1 to 15 characters, without spaces and slashes."
	defaultAdvice = "Choose a private range, such as " + DefaultRange + "."
)

// Validate returns a *hint.Error that names the wrong flag and how to fix it, or nil. It does not look at the host.
func (c *Config) Validate() error {
	checks := []func() error{
		c.validateNames, c.validateDomain, c.validatePorts, c.validateRanges, c.validateTrusted, c.validateModes,
		c.validateProtection, c.validateSizes, c.validatePeers,
	}
	for _, check := range checks {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (c *Config) validateNames() error {
	if err := CheckName(c.Name); err != nil {
		return err
	}
	switch {
	case c.StateDir == "":
		return hint.Refuse("--state-dir", "Name a directory, such as "+DefaultStateDir+".", "%q is not a directory", c.StateDir)
	case c.Socket == "" || len(c.Socket) > maxSocketLen:
		return hint.Refuse("--socket", "Name a path of at most 107 bytes, such as "+DefaultSocket+".", "%q cannot be a unix socket", c.Socket)
	case !validIfname(c.Bridge):
		return hint.Refuse("--bridge", ifnameAdvice, "%q is not an interface name", c.Bridge)
	case !validIfname(c.Tap) || c.Tap == c.Bridge:
		return hint.Refuse("--tap", "It must differ from the bridge. "+ifnameAdvice, "%q cannot be the name of the TAP", c.Tap)
	}
	return nil
}

// CheckName returns a *hint.Error if s cannot be the name of a node, or nil.
func CheckName(s string) error {
	if validName(s) {
		return nil
	}
	return hint.Refuse("--name", "Use up to 255 letters, digits, hyphens, dots and underscores, such as "+nameLike(s)+".",
		"%s cannot be the name of a node", usage.Quote(s))
}

// validName reports whether s is like a host name: letters, digits, hyphens, dots and underscores, of which hosts have all, with a
// letter or digit at both ends.
func validName(s string) bool {
	isInner := func(r byte) bool { return isAlphanumeric(r) || strings.IndexByte("-._", r) >= 0 }
	if s == "" || len(s) > maxNameLen || !isAlphanumeric(s[0]) || !isAlphanumeric(s[len(s)-1]) {
		return false
	}
	return !slices.ContainsFunc([]byte(s), func(b byte) bool { return !isInner(b) })
}

func isAlphanumeric(b byte) bool {
	return 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9'
}

// nameLike returns a valid name that is like s.
func nameLike(s string) string {
	words := strings.FieldsFunc(s, func(r rune) bool { return r > '~' || !isAlphanumeric(byte(r)) })
	if name := strings.Join(words, "-"); validName(name) {
		return name
	}
	return "host1"
}

// validateDomain refuses a domain below which no name could be resolved: hosts resolve .local itself by mDNS (RFC 6762), addresses are no
// names, and .arpa has the names of addresses.
func (c *Config) validateDomain() error {
	domain := c.Domain()
	fixed := strings.Trim(strings.ToLower(domain), ".")
	switch {
	case fixed == "local":
		return hint.Refuse("--dns-domain", "Write a domain below it, such as "+DefaultDNSDomain+", or one that your organization owns.",
			"the domain local belongs to mDNS (RFC 6762)")
	case fixed == "arpa" || strings.HasSuffix(fixed, ".arpa"):
		return hint.Refuse("--dns-domain", "Write a domain such as "+DefaultDNSDomain+".", "the domain arpa has the names of addresses")
	case !validDomain(fixed):
		return hint.Refuse("--dns-domain", "Write labels of letters, digits and hyphens with dots between them, at most 52 bytes, such as "+
			DefaultDNSDomain+".", "%s is not a domain", usage.Quote(domain))
	case fixed != domain:
		return hint.Refuse("--dns-domain", "Write "+fixed+".", "%s has capitals, or a dot at an end", usage.Quote(domain))
	}
	return nil
}

// validDomain reports whether s is a domain in lower case (RFC 1123, 2.1). Its last label is no number, as those of addresses are.
func validDomain(s string) bool {
	if s == "" || len(s) > maxDomainLen {
		return false
	}
	last := ""
	for last = range strings.SplitSeq(s, ".") {
		valid := func(b byte) bool { return 'a' <= b && b <= 'z' || '0' <= b && b <= '9' || b == '-' }
		if last == "" || len(last) > maxLabelLen || strings.HasPrefix(last, "-") || strings.HasSuffix(last, "-") ||
			slices.ContainsFunc([]byte(last), func(b byte) bool { return !valid(b) }) {
			return false
		}
	}
	return strings.Trim(last, "0123456789") != ""
}

func validIfname(s string) bool {
	return s != "" && len(s) <= ifnameLen && s != "." && s != ".." && !strings.ContainsAny(s, "/: \t\n%")
}

func (c *Config) validatePorts() error {
	if c.Port < 1 || c.Port > maxPort {
		return hint.Refuse("--port", "Choose a port from 1 to 65531: four more follow, for data, the kernel's VXLAN and WireGuard.",
			"%d is out of range", c.Port)
	}
	if c.HTTPAddr == "" {
		return nil
	}
	if _, err := netip.ParseAddrPort(c.HTTPAddr); err != nil {
		return hint.Refuse("--http-addr", "Give an IP address and a port, such as "+DefaultHTTPAddr+", or an empty value to turn it off.",
			"%s is not an address with a port", usage.Quote(c.HTTPAddr))
	}
	return nil
}

func (c *Config) validateRanges() error {
	if len(c.Ranges) == 0 || len(c.Ranges) > maxRanges {
		return hint.Refuse("--range", "Give one range, such as "+DefaultRange+", or one a family.", "%d ranges", len(c.Ranges))
	}
	for i, r := range c.Ranges {
		if r != r.Masked() {
			return hint.Refuse("--range", "Write "+r.Masked().String()+".", "%s has bits set behind its prefix", r)
		}
		if free := r.Addr().BitLen() - r.Bits(); free < minRangeBits {
			return hint.Refuse("--range", "Choose a larger range: it must hold at least 4 addresses.", "%s is too small", r)
		}
		if a := r.Addr(); a.IsMulticast() || a.IsLoopback() || a.IsLinkLocalUnicast() || r.Bits() == 0 {
			return hint.Refuse("--range", defaultAdvice, "%s cannot be used for pods", r)
		}
		for _, other := range c.Ranges[:i] {
			if r.Overlaps(other) {
				return hint.Refuse("--range", "Give ranges that do not overlap.", "%s overlaps %s", r, other)
			}
		}
	}
	return nil
}

// validateTrusted refuses addresses that were meant as subnets.
func (c *Config) validateTrusted() error {
	for _, p := range c.TrustedSubnets {
		if p != p.Masked() {
			return hint.Refuse("--trusted-subnets", "Write "+p.Masked().String()+", or "+p.Addr().String()+"/"+strconv.Itoa(p.Addr().BitLen())+
				" for that address alone.", "%s has bits set behind its prefix", p)
		}
	}
	return nil
}

// Modes returns the values of the flags that have a fixed list of them, by the names of the flags.
func Modes() map[string][]string {
	return map[string][]string{
		"aes":            {AESAuto, AESStandard},
		"cipher":         {CipherAuto, session.AES256GCM.String(), session.ChaCha20Poly1305.String()},
		"datapath":       {DatapathAuto, DatapathUserspace, DatapathKernel},
		"carriers":       {string(carrier.VXLAN), string(carrier.WireGuard), string(carrier.Direct)},
		"direct-routing": {DirectRoutingOff, DirectRoutingAuto},
		"offload":        {OffloadAuto, OffloadOff},
		"dscp":           {DSCPNone, DSCPCopy},
		"source-ports":   {SourcePortsAuto, SourcePortsFlow, SourcePortsOne},
		"busy-poll":      {BusyPollOff, BusyPollAuto},
		"guard":          {string(api.GuardPods), string(api.GuardHost), string(api.GuardOff)},
		"source-check":   {SourceCheckLog, SourceCheckEnforce, SourceCheckOff},
	}
}

// flagValue is a value of a flag.
type flagValue struct{ flag, value string }

// validateModes refuses values that this version does not know.
func (c *Config) validateModes() error {
	modes := Modes()
	var carriers []flagValue
	for _, name := range c.Carriers {
		carriers = append(carriers, flagValue{"carriers", name})
	}
	for _, m := range append(carriers, []flagValue{
		{"cipher", c.Cipher},
		{"aes", cmp.Or(c.AES, AESAuto)},
		{"datapath", c.Datapath},
		{"direct-routing", cmp.Or(c.DirectRouting, DirectRoutingOff)},
		{"offload", c.Offload},
		{"dscp", cmp.Or(c.DSCP, DSCPNone)},
		{"source-ports", cmp.Or(c.SourcePorts, SourcePortsAuto)},
		{"busy-poll", cmp.Or(c.BusyPoll, BusyPollOff)},
		{"guard", string(cmp.Or(c.Guard, api.GuardHost))},
		{"source-check", cmp.Or(c.SourceCheck, SourceCheckLog)},
	}...) {
		known := modes[m.flag]
		if slices.Contains(known, m.value) {
			continue
		}
		advice := "Choose one of " + strings.Join(known, ", ") + "."
		if near, ok := suggest.Nearest(m.value, known); ok {
			advice = "Did you mean " + near + "? " + advice
		}
		return hint.Refuse("--"+m.flag, advice, "%s is unknown", usage.Quote(m.value))
	}
	return nil
}

// validateProtection refuses a configuration that asks for traffic both with and without encryption.
func (c *Config) validateProtection() error {
	if c.Plain && c.Protected() {
		return hint.Refuse("--plain", "Remove --plain to encrypt the traffic, or the file to leave it plain.",
			"it contradicts %s", c.ProtectedBy())
	}
	if c.IdentityCAFile != "" && c.IdentityFile == "" {
		return hint.Refuse("--identity-ca", "Set --identity as well, or remove --identity-ca.", "there is no --identity")
	}
	return nil
}

func (c *Config) validateSizes() error {
	switch {
	case c.MTU != 0 && (c.MTU < minMTU || c.MTU > hostnet.MaxMTU):
		return hint.Refuse("--mtu", "Choose 576 to 65521, or 0 to derive it from the underlay.", "%d is out of range", c.MTU)
	case c.MTU != 0 && c.MTU < c.MinOverlayMTU():
		return hint.Refuse("--mtu", "Choose 1280 or more: IPv6 needs it (RFC 8200).", "%d is too small for an IPv6 range", c.MTU)
	case c.BroadcastLimit < 0:
		return hint.Refuse("--broadcast-limit", "Choose a number, or 0 for no limit.", "%d is negative", c.BroadcastLimit)
	case c.PeerMetrics < 0:
		return hint.Refuse("--peer-metrics", "Choose a number, or 0 for sums over all peers only.", "%d is negative", c.PeerMetrics)
	case c.Queues < 0 || c.Queues > MaxQueues:
		return hint.Refuse("--queues", "Choose 1 to 8, or 0 for one a CPU.", "%d is out of range", c.Queues)
	case c.InitPeers < BootstrapFromPeers || c.InitPeers > api.MaxInitPeers:
		return hint.Refuse("--init-peers", "Choose how many nodes must meet before the range is first divided, at most 2048, or 0 for "+
			"an observer.",
			"%d is out of range", c.InitPeers)
	case c.LeaseGrace < 0:
		return hint.Refuse("--lease-grace", "Give a duration such as 5m.", "%s is negative", c.LeaseGrace)
	case c.Advertise.IsValid() && (c.Advertise.IsUnspecified() || c.Advertise.IsMulticast()):
		return hint.Refuse("--advertise", "Give the address at which the other nodes reach this one.", "%s cannot be a node's address",
			c.Advertise)
	}
	return nil
}

// peerAdvice returns how to fix an error of target.Parse.
func peerAdvice(err error) string {
	if e, ok := errors.AsType[*target.Error](err); ok {
		return e.Fix
	}
	return ""
}

func (c *Config) validatePeers() error {
	for _, p := range c.Peers {
		if _, err := target.Parse(p, uint16(c.Port)); err != nil {
			return hint.Refuse("PEER", peerAdvice(err), "%w", err)
		}
	}
	return nil
}
