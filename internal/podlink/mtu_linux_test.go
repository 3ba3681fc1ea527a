package podlink_test

import (
	"fmt"
	"strings"
	"testing"

	"weft/internal/nettest"
	"weft/internal/nettest/labtest"
	"weft/internal/podlink"
)

// TestResizeAll: the MTU of both ends of a pair goes down and up, without its path; a removed pair is no error.
func TestResizeAll(t *testing.T) {
	h := newHost(t)
	p := labtest.AddPod(t, h, "p")
	spec := podlink.Spec{Netns: p.Path(), Ifname: "eth0", HostName: "vweftp", Bridge: "weave", MTU: 1400}
	if _, err := (inside{h}).Attach(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	for _, mtu := range []int{1300, 1450} {
		port := onlyPort(t, h)
		list := []podlink.Resize{{Port: port, Host: mtu, Pod: mtu}}
		if err := h.Do(func() error { podlink.ResizeAll(list); return list[0].Err }); err != nil {
			t.Fatal(err)
		}
		for space, ifname := range map[*nettest.Space]string{h.Space: "vweftp", p.Space: "eth0"} {
			if out := labtest.Run(t, space, "ip", "link", "show", ifname); !strings.Contains(out, fmt.Sprintf("mtu %d ", mtu)) {
				t.Errorf("want MTU %d: %s", mtu, out)
			}
		}
		after := onlyPort(t, h)
		if err := h.Do(func() error {
			if inner, err := after.PodMTU(); err != nil || inner != mtu || after.MTU != mtu {
				return fmt.Errorf("MTU %d outside, %d inside (%w), want %d", after.MTU, inner, err, mtu)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
	list := []podlink.Resize{{Port: onlyPort(t, h), Host: 1300, Pod: 1300}}
	labtest.Run(t, h.Space, "ip", "link", "del", "vweftp")
	_ = h.Do(func() error { podlink.ResizeAll(list); return nil })
	if list[0].Err != nil {
		t.Error(list[0].Err)
	}
}

func onlyPort(t *testing.T, h *nettest.Host) podlink.Port {
	t.Helper()
	var ports []podlink.Port
	if err := h.Do(func() (err error) { ports, err = podlink.Ports("weave"); return err }); err != nil {
		t.Fatal(err)
	}
	if len(ports) != 1 {
		t.Fatalf("%+v, want one port", ports)
	}
	return ports[0]
}
