package underlay_test

import (
	"testing"

	"weft/router/underlay"
)

func TestFeatures(t *testing.T) {
	for f, want := range map[underlay.Features]string{
		0: "none", underlay.GSO: "gso", underlay.GRO: "gro", underlay.GSO | underlay.GRO: "gso,gro",
		underlay.GRO | underlay.Steering: "gro,steering",
	} {
		if got := f.String(); got != want {
			t.Errorf("%d reads %q, want %q", f, got, want)
		}
	}
}
