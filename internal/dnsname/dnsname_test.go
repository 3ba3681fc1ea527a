package dnsname

import (
	"strings"
	"testing"
)

func TestNames(t *testing.T) {
	long := strings.Repeat("a", 80)
	for name, want := range map[string]struct{ of, label string }{
		"web": {"web", "web"}, "Shop_1": {"shop-1", "shop-1"}, "_x_": {"x", "x"}, "a.b": {"a.b", "a-b"},
		"-a._b-": {"a.b", "a--b"}, "___": {"", ""},
		"ü": {"ü", ""}, long: {long, long[:63]},
	} {
		if got := Of(name); got != want.of {
			t.Errorf("Of(%q) = %q, want %q", name, got, want.of)
		}
		if got := Label(name); got != want.label {
			t.Errorf("Label(%q) = %q, want %q", name, got, want.label)
		}
	}
}
