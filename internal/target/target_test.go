package target_test

import (
	"errors"
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
		{"fd00::1", target.Target{"fd00::1", 6783}, true},
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
