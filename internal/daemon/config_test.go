package daemon

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"weft/internal/api"
)

// goodConfig returns a Config that Validate accepts.
func goodConfig() Config {
	return Config{
		Name: "a", StateDir: DefaultStateDir, Socket: DefaultSocket, Bridge: DefaultBridge, Tap: DefaultTap, Port: DefaultPort,
		Ranges: []netip.Prefix{netip.MustParsePrefix(DefaultRange)}, InitPeers: FoundersFromPeers,
		Cipher: "auto", Datapath: "auto", Offload: "auto", HTTPAddr: DefaultHTTPAddr,
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
		change func(*Config)
	}{
		{"", func(*Config) {}},
		{"", func(c *Config) { c.HTTPAddr = "" }},
		{"", func(c *Config) { c.Ranges = prefixes("10.32.0.0/12", "fd32::/64") }},
		{"", func(c *Config) { c.Peers = []string{"host", "host:1", "fd00::1", "[fd00::1]:1"} }},
		{"", func(c *Config) { c.InitPeers = 0 }},
		{"", func(c *Config) { c.InitPeers = 1001 }},
		{"", func(c *Config) { c.InitPeers = api.MaxInitPeers }},
		{"", func(c *Config) { c.SecretFile = "/secret" }}, // which is looked at later
		{"--name", func(c *Config) { c.Name = "" }},
		{"--name", func(c *Config) { c.Name = strings.Repeat("x", 256) }},
		{"--state-dir", func(c *Config) { c.StateDir = "" }},
		{"--socket", func(c *Config) { c.Socket = strings.Repeat("x", 108) }},
		{"--bridge", func(c *Config) { c.Bridge = "a/b" }},
		{"--tap", func(c *Config) { c.Tap = c.Bridge }},
		{"--port", func(c *Config) { c.Port = 0 }},
		{"--port", func(c *Config) { c.Port = 65534 }},
		{"--http-addr", func(c *Config) { c.HTTPAddr = "localhost:80" }},
		{"--range", func(c *Config) { c.Ranges = nil }},
		{"--range", func(c *Config) { c.Ranges = prefixes("10.32.0.1/12") }},
		{"--range", func(c *Config) { c.Ranges = prefixes("10.32.0.0/31") }},
		{"--range", func(c *Config) { c.Ranges = prefixes("0.0.0.0/0") }},
		{"--range", func(c *Config) { c.Ranges = prefixes("fe80::/64") }},
		{"--range", func(c *Config) { c.Ranges = prefixes("10.0.0.0/8", "10.32.0.0/12") }},
		{"--cipher", func(c *Config) { c.Cipher = "none" }},
		{"--datapath", func(c *Config) { c.Datapath = "fast" }},
		{"--offload", func(c *Config) { c.Offload = "" }},
		{"--mtu", func(c *Config) { c.MTU = 68 }},
		{"--queues", func(c *Config) { c.Queues = -1 }},
		{"--init-peers", func(c *Config) { c.InitPeers = -2 }},
		{"--init-peers", func(c *Config) { c.InitPeers = api.MaxInitPeers + 1 }},
		{"--advertise", func(c *Config) { c.Advertise = netip.IPv4Unspecified() }},
		{"PEER", func(c *Config) { c.Peers = []string{"a b"} }},
	} {
		c := goodConfig()
		tt.change(&c)
		err := c.Validate()
		refusal, ok := errors.AsType[*Refusal](err)
		switch {
		case tt.flag == "" && err != nil:
			t.Errorf("%+v: %v", c, err)
		case tt.flag != "" && (!ok || refusal.Subject != tt.flag || refusal.Hint == ""):
			t.Errorf("want a refusal of %s with a hint, got %v", tt.flag, err)
		}
	}
}

func TestFounders(t *testing.T) {
	for _, tt := range []struct {
		initPeers, peers, want int
		lone                   bool
	}{
		{FoundersFromPeers, 0, 1, true},
		{FoundersFromPeers, 2, 3, false},
		{1, 0, 1, false},
		{5, 2, 5, false},
		{0, 2, 0, false},
		{FoundersFromPeers, api.MaxInitPeers - 1, api.MaxInitPeers, false},
		{FoundersFromPeers, api.MaxInitPeers, api.MaxInitPeers, false},
	} {
		c := Config{InitPeers: tt.initPeers, Peers: make([]string, tt.peers)}
		if c.founders() != tt.want || c.lone() != tt.lone {
			t.Errorf("--init-peers %d with %d PEERs: %d founders, lone %v", tt.initPeers, tt.peers, c.founders(), c.lone())
		}
	}
}
