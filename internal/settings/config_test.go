package settings_test

import (
	"weft/internal/hint"
	"weft/internal/settings"

	"errors"
	"net/netip"
	"strings"
	"testing"
)

// goodConfig returns a Config that Validate accepts.
func goodConfig() settings.Config {
	return settings.Config{
		Name: "a", StateDir: settings.DefaultStateDir, Socket: settings.DefaultSocket, Bridge: settings.DefaultBridge,
		Tap: settings.DefaultTap, Port: settings.DefaultPort,
		Ranges: []netip.Prefix{netip.MustParsePrefix(settings.DefaultRange)}, InitPeers: settings.BootstrapFromPeers,
		Cipher: "auto", Datapath: "auto", Offload: "auto", HTTPAddr: settings.DefaultHTTPAddr,
	}
}

func TestValidateNamesTheFlag(t *testing.T) {
	prefixes := func(list ...string) []netip.Prefix {
		var out []netip.Prefix
		for _, s := range list {
			out = append(out, netip.MustParsePrefix(s))
		}
		return out
	}
	for _, tt := range []struct {
		flag   string // empty: valid
		change func(*settings.Config)
	}{
		{"", func(*settings.Config) {}},
		{"", func(c *settings.Config) { c.HTTPAddr = "" }},
		{"", func(c *settings.Config) { c.Ranges = prefixes("10.32.0.0/12", "fd32::/64") }},
		{"", func(c *settings.Config) { c.Peers = []string{"host", "host:1", "[fd00::1]", "[fd00::1]:1"} }},
		{"", func(c *settings.Config) { c.InitPeers = 0 }},
		{"", func(c *settings.Config) { c.SecretFile = "/secret" }}, // which is looked at later
		{"", func(c *settings.Config) { c.Plain = true }},
		{"--plain", func(c *settings.Config) { c.Plain, c.SecretFile = true, "/secret" }},
		{"--name", func(c *settings.Config) { c.Name = "" }},
		{"--name", func(c *settings.Config) { c.Name = strings.Repeat("x", 256) }},
		{"--name", func(c *settings.Config) { c.Name = "a b" }},
		{"--name", func(c *settings.Config) { c.Name = "-a" }},
		{"--name", func(c *settings.Config) { c.Name = "a\x1b" }},
		{"", func(c *settings.Config) { c.Name = "Node_1.example.org" }},
		{"", func(c *settings.Config) { c.TrustedSubnets = prefixes("192.0.2.0/24", "192.0.2.1/32") }},
		{"--trusted-subnets", func(c *settings.Config) { c.TrustedSubnets = prefixes("192.0.2.1/24") }},
		{"", func(c *settings.Config) { c.DNSDomain = "pods.example.org" }},
		{"", func(c *settings.Config) { c.DNSDomain = "weft" }},
		{"", func(c *settings.Config) { c.DNSDomain = "0a.x-1" }},
		{"", func(c *settings.Config) { c.DNSDomain = strings.Repeat("a.", 25) + "ab" }},
		{"--dns-domain", func(c *settings.Config) { c.DNSDomain = strings.Repeat("a.", 26) + "a" }},
		{"--dns-domain", func(c *settings.Config) { c.DNSDomain = "local" }},
		{"--dns-domain", func(c *settings.Config) { c.DNSDomain = "Local." }},
		{"--dns-domain", func(c *settings.Config) { c.DNSDomain = "weft.local." }},
		{"--dns-domain", func(c *settings.Config) { c.DNSDomain = ".weft.local" }},
		{"--dns-domain", func(c *settings.Config) { c.DNSDomain = "Weft.local" }},
		{"--dns-domain", func(c *settings.Config) { c.DNSDomain = "." }},
		{"--dns-domain", func(c *settings.Config) { c.DNSDomain = "a..b" }},
		{"--dns-domain", func(c *settings.Config) { c.DNSDomain = "a_b.c" }},
		{"--dns-domain", func(c *settings.Config) { c.DNSDomain = "-a.b" }},
		{"--dns-domain", func(c *settings.Config) { c.DNSDomain = "10.32.0.1" }},
		{"--dns-domain", func(c *settings.Config) { c.DNSDomain = "32.10.in-addr.arpa" }},
		{"--dns-domain", func(c *settings.Config) { c.DNSDomain = "b\u00fccher.example" }},
		{"--state-dir", func(c *settings.Config) { c.StateDir = "" }},
		{"--socket", func(c *settings.Config) { c.Socket = strings.Repeat("x", 108) }},
		{"--bridge", func(c *settings.Config) { c.Bridge = "a/b" }},
		{"--tap", func(c *settings.Config) { c.Tap = c.Bridge }},
		{"--port", func(c *settings.Config) { c.Port = 0 }},
		{"--port", func(c *settings.Config) { c.Port = 65532 }},
		{"--http-addr", func(c *settings.Config) { c.HTTPAddr = "localhost:80" }},
		{"--range", func(c *settings.Config) { c.Ranges = nil }},
		{"--range", func(c *settings.Config) { c.Ranges = prefixes("10.32.0.1/12") }},
		{"--range", func(c *settings.Config) { c.Ranges = prefixes("10.32.0.0/31") }},
		{"--range", func(c *settings.Config) { c.Ranges = prefixes("0.0.0.0/0") }},
		{"--range", func(c *settings.Config) { c.Ranges = prefixes("fe80::/64") }},
		{"--range", func(c *settings.Config) { c.Ranges = prefixes("10.0.0.0/8", "10.32.0.0/12") }},
		{"--cipher", func(c *settings.Config) { c.Cipher = "none" }},
		{"--datapath", func(c *settings.Config) { c.Datapath = "fast" }},
		{"--offload", func(c *settings.Config) { c.Offload = "" }},
		{"--mtu", func(c *settings.Config) { c.MTU = 68 }},
		{"--queues", func(c *settings.Config) { c.Queues = -1 }},
		{"--init-peers", func(c *settings.Config) { c.InitPeers = -2 }},
		{"--advertise", func(c *settings.Config) { c.Advertise = netip.IPv4Unspecified() }},
		{"PEER", func(c *settings.Config) { c.Peers = []string{"a b"} }},
		{"PEER", func(c *settings.Config) { c.Peers = []string{"fd00::1"} }},
	} {
		c := goodConfig()
		tt.change(&c)
		err := c.Validate()
		refusal, ok := errors.AsType[*hint.Error](err)
		switch {
		case tt.flag == "" && err != nil:
			t.Errorf("%+v: %v", c, err)
		case tt.flag != "" && (!ok || refusal.Subject != tt.flag || refusal.Hint == ""):
			t.Errorf("want a refusal of %s with a hint, got %v", tt.flag, err)
		}
	}
}

// TestEntropyPorts: flows leave from further ports on nodes with many queues, or where that is wanted and there are several.
func TestEntropyPorts(t *testing.T) {
	for _, c := range []struct {
		mode         string
		queues, want int
	}{
		{"", 1, 0}, {"", 3, 0}, {"", 4, 4}, {settings.SourcePortsAuto, 8, 8},
		{settings.SourcePortsFlow, 1, 0}, {settings.SourcePortsFlow, 2, 2}, {settings.SourcePortsOne, 8, 0},
	} {
		if got := (&settings.Config{SourcePorts: c.mode, Queues: c.queues}).EntropyPorts(); got != c.want {
			t.Errorf("%q with %d queues: %d ports, want %d", c.mode, c.queues, got, c.want)
		}
	}
}

func TestBootstrapNodes(t *testing.T) {
	for _, tt := range []struct {
		initPeers, peers, want int
		lazy                   bool
	}{
		{settings.BootstrapFromPeers, 0, 1, true},
		{settings.BootstrapFromPeers, 2, 3, false},
		{1, 0, 1, false},
		{5, 2, 5, false},
		{0, 2, 0, false},
	} {
		c := settings.Config{InitPeers: tt.initPeers, Peers: make([]string, tt.peers)}
		if c.BootstrapNodes() != tt.want || c.LazyBootstrap() != tt.lazy {
			t.Errorf("--init-peers %d with %d PEERs: %d nodes bootstrap, lazy %v", tt.initPeers, tt.peers, c.BootstrapNodes(), c.LazyBootstrap())
		}
	}
}
