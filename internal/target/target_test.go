package target_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"weft/internal/target"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want target.Target
		ok   bool
	}{
		{"host1", target.Target{"host1", 6783}, true},
		{"host1:7000", target.Target{"host1", 7000}, true},
		{"192.168.1.2", target.Target{"192.168.1.2", 6783}, true},
		{"192.168.1.2:1", target.Target{"192.168.1.2", 1}, true},
		{"fd00::1", target.Target{}, false},
		{"[fd00::1]", target.Target{"fd00::1", 6783}, true},
		{"[fd00::1]:7000", target.Target{"fd00::1", 7000}, true},
		{"", target.Target{}, false},
		{":6783", target.Target{}, false},
		{"host:port", target.Target{}, false},
		{"host:0", target.Target{}, false},
		{"host:65536", target.Target{}, false},
		{"http://host", target.Target{}, false},
		{"fe80::1%a/b", target.Target{}, false},
		{"host:port:more:", target.Target{}, false},
		{"two hosts", target.Target{}, false},
		{"-oops", target.Target{}, false},
	} {
		got, err := target.Parse(tt.in, 6783)
		if tt.ok != (err == nil) || got != tt.want {
			t.Errorf("Parse(%q) = %v, %v", tt.in, got, err)
		}
		if err != nil && !errors.Is(err, target.ErrTarget) {
			t.Errorf("Parse(%q): %v is not ErrTarget", tt.in, err)
		}
	}
}

func TestErrorsHaveAFix(t *testing.T) {
	for _, tt := range []struct{ in, reason, fix string }{
		{"2001:db8::1", `"2001:db8::1" is an IPv6 address without brackets`, `Write "[2001:db8::1]".`},
		{"http://host1", `"http://host1" is a URL, and a peer is a host`, "Write host1."},
		{
			"host1:many", `"host1:many" has the port "many", which is not a number from 1 to 65535`,
			"Write the gossip port of that node, or host1 alone for 6783.",
		},
		{"a b", `"a b" is not a host name or address`, "A peer is HOST or HOST:PORT, with an IPv6 address in brackets."},
	} {
		_, err := target.Parse(tt.in, 6783)
		if e, ok := errors.AsType[*target.Error](err); !ok || e.Error() != tt.reason || e.Fix != tt.fix {
			t.Errorf("%s: %v", tt.in, err)
		}
	}
}

func TestReasonsDoNotRepeatTheTarget(t *testing.T) {
	addr := netip.MustParseAddr("192.0.2.1")
	refused := fmt.Errorf("dial tcp 192.0.2.1:6783: connect: %w", syscall.ECONNREFUSED)
	for _, tt := range []struct{ got, want string }{
		{target.Target{"192.0.2.1", 6783}.DialError(addr, refused).Error(), "connection refused"},
		{target.Target{"host1", 6783}.DialError(addr, refused).Error(), "192.0.2.1: connection refused"},
		{target.Target{"host1", 6783}.DialError(addr, errors.New("mesh: another secret")).Error(), "mesh: another secret"},
		{
			target.LookupError(&net.DNSError{Name: "host1", Server: "192.0.2.53", Err: "server misbehaving"}).Error(),
			`the name "host1" cannot be resolved: server misbehaving`,
		},
		{target.LookupError(&net.DNSError{Name: "host1", Server: "192.0.2.53", IsNotFound: true}).Error(), `no address has the name "host1"`},
	} {
		if tt.got != tt.want {
			t.Errorf("%q, want %q", tt.got, tt.want)
		}
	}
}
