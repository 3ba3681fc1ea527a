package driver

import (
	"io"
	"strings"
	"testing"
)

func TestLastLine(t *testing.T) {
	for log, want := range map[string]string{
		"":                                "it logged nothing",
		"one\ntwo\n":                      "two",
		"weft: no\nhint: do this\n\n":     "weft: no",
		"  spaced  \n":                    "spaced",
		"hint: only a hint\n":             "it logged nothing",
		"a\nweft: x; hint: on one line\n": "weft: x; hint: on one line",
	} {
		if got := lastLine(log); got != want {
			t.Errorf("lastLine(%q) = %q, want %q", log, got, want)
		}
	}
}

func TestChecksumFlag(t *testing.T) {
	for shown, want := range map[string]string{
		"vxlan id 42 noudpcsum noudp6zerocsumtx": "noudpcsum",
		"vxlan id 42 udpcsum noudp6zerocsumtx":   "udpcsum",
		"vxlan id 42 noudp6zerocsumtx something": "not shown",
	} {
		if got := checksumFlag(shown); got != want {
			t.Errorf("checksumFlag(%q) = %q, want %q", shown, got, want)
		}
	}
}

func TestSelect(t *testing.T) {
	got, err := Select(Config{}, []string{"weft", "vxlan"})
	if err != nil || len(got) != 2 || got[0].Name() != Base || got[1].Name() != "weft" {
		t.Errorf("Select = %v, %v", got, err)
	}
	if _, err := Select(Config{}, []string{"nonsense"}); err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("Select of nonsense: %v", err)
	}
}

func TestNoFetchFetchesNothing(t *testing.T) {
	tools := &Tools{Dir: t.TempDir(), NoFetch: true, Out: io.Discard}
	if _, err := tools.goTool(t.Context(), "wireguard", wireguardPackage, wireguardVersion); err == nil {
		t.Error("wireguard-go was found although it is not installed")
	}
	if _, err := tools.systemTool(t.Context(), "no-such-program", "no-such-package"); err == nil {
		t.Error("no-such-program was found")
	}
	if path, err := tools.systemTool(t.Context(), "sh", "dash"); err != nil || path == "" {
		t.Errorf("sh: %q, %v", path, err)
	}
}
