package holder_test

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"weft/internal/ether"
	"weft/internal/leases/holder"
)

// TestTextForms pins the text forms: they are on disk, in the API, and in scripts of operators.
func TestTextForms(t *testing.T) {
	for _, tt := range []struct {
		text     string
		want     holder.Holder
		reserved bool
	}{
		{"cni/weft/abc/eth0", holder.ForContainer("weft", "abc", "eth0"), false},
		{"docker/02:42:0a:20:01:05", holder.ForDocker(ether.Addr{2, 0x42, 10, 32, 1, 5}), false},
		{"docker/gateway/10.32.1.0/24", holder.Holder{Kind: holder.Named, Name: "docker/gateway/10.32.1.0/24"}, false},
		{"docker/02:42:0A:20:01:05", holder.Holder{Kind: holder.Named, Name: "docker/02:42:0A:20:01:05"}, false},
		{"netns:/run/netns/p/eth0", holder.ForNamespace("/run/netns/p", "eth0"), false},
		{"netns:/proc/42/ns/net/eth0", holder.Holder{Kind: holder.Process, Netns: "/proc/42/ns/net", Ifname: "eth0"}, false},
		{"weft:expose", holder.ForHost(), true},
		{"weft:gateway", holder.ForGateway(), true},
		{"weft:direct", holder.ForProbes(), true},
		{"weft:dns", holder.ForNames(), true},
		{"weft:orphan/vweftx", holder.ForOrphan("vweftx"), true},
		{"weft:later", holder.Holder{Kind: holder.Reserved, Name: "weft:later"}, true},
		{"web", holder.Holder{Kind: holder.Named, Name: "web"}, false},
		{"cni/weft/abc", holder.Holder{Kind: holder.Named, Name: "cni/weft/abc"}, false},
		{"cni/weft//eth0", holder.Holder{Kind: holder.Named, Name: "cni/weft//eth0"}, false},
		{"cni/a/b/c/d", holder.Holder{Kind: holder.Named, Name: "cni/a/b/c/d"}, false},
		{"netns:x", holder.Holder{Kind: holder.Named, Name: "netns:x"}, false},
	} {
		got := holder.Parse(tt.text)
		if got != tt.want || got.String() != tt.text || got.IsReserved() != tt.reserved {
			t.Errorf("%q is %+v (%q, reserved %v), want %+v", tt.text, got, got.String(), got.IsReserved(), tt.want)
		}
	}
	if got := holder.ForNamespace("/run//netns/../netns/p", "eth0").String(); got != "netns:/run/netns/p/eth0" {
		t.Errorf("%q", got)
	}
}

// TestAnyTextSurvives: a text that any version or operator has written comes back as it was.
func TestAnyTextSurvives(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.SampledFrom([]string{"", "cni/", "docker/", "netns:", "weft:", "weft:orphan/"}).
			Draw(t, "prefix") +
			rapid.String().
				Draw(t, "rest")
		if got := holder.Parse(text).String(); got != text {
			t.Errorf("%q came back as %q", text, got)
		}
	})
}

// TestLinks: only leases of attachments are for a pair, and an orphan's are for none: what ends them must not end it.
func TestLinks(t *testing.T) {
	container, namespace := holder.ForContainer("weft", "abc", "eth0"), holder.ForNamespace("/run/netns/p", "eth0")
	for _, h := range []holder.Holder{holder.ForHost(), holder.ForNames(), holder.ForOrphan("vweftx"), holder.Parse("web")} {
		if name, ok := h.HostLink(); ok {
			t.Errorf("%s has the host end %s", h, name)
		}
	}
	for _, h := range []holder.Holder{container, namespace} {
		name, ok := h.HostLink()
		if !ok || !strings.HasPrefix(name, "vweft") || !slices.Contains(h.PossibleLinks(), name) {
			t.Errorf("%s has the host end %q (%v) of %v", h, name, ok, h.PossibleLinks())
		}
	}
	if name, _ := container.HostLink(); name == container.AttachLink() {
		t.Error("a container's pair by CNI and by weft attach have one name")
	}
}
