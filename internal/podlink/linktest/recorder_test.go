package linktest_test

import (
	"fmt"
	"testing"

	"weft/internal/podlink/linktest"
)

func TestRecorder(t *testing.T) {
	linktest.TestLinker(t, func(*testing.T) linktest.Fixture {
		r := linktest.NewRecorder("weave")
		spaces := 0
		return linktest.Fixture{
			Linker: r, Bridge: "weave",
			NewNetns: func() string {
				spaces++
				path := fmt.Sprintf("/run/netns/pod%d", spaces)
				r.AddNetns(path)
				return path
			},
			RemoveNetns: r.RemoveNetns, AddOther: r.AddOther, Run: r.Run, HostLinks: r.HostLinks,
		}
	})
}
