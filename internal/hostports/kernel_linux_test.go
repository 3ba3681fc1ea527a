package hostports

import (
	"strings"
	"testing"

	"weft/internal/nettest"
	"weft/internal/nettest/labtest"
)

// TestPublish: the kernel accepts the rules of both families, a second call replaces them, and one without ports removes them.
func TestPublish(t *testing.T) {
	l := labtest.New(t, nettest.Config{})
	h := labtest.AddHost(t, l, "a")
	publish := func(ports ...Port) string {
		t.Helper()
		if err := h.Do(func() error { return Publish(t.Context(), ports) }); err != nil {
			t.Fatal(err)
		}
		return labtest.Run(t, h.Space, "nft", "list", "ruleset")
	}
	first, second := port(8080, "tcp", "10.32.0.2:80"), port(53, "udp", "[fd32::2]:53")
	if out := publish(first, second); !strings.Contains(out, "dnat to 10.32.0.2:80") || !strings.Contains(out, "dnat to [fd32::2]:53") {
		t.Errorf("two ports:\n%s", out)
	}
	if out := publish(second); strings.Contains(out, "8080") || !strings.Contains(out, "udp dport 53") {
		t.Errorf("one port:\n%s", out)
	}
	if out := publish(); strings.TrimSpace(out) != "" {
		t.Errorf("no ports:\n%s", out)
	}
	if err := h.Do(func() error { t.Setenv("PATH", t.TempDir()); return Publish(t.Context(), nil) }); err != nil {
		t.Errorf("without nft: %v", err)
	}
}
