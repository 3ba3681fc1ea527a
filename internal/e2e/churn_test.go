package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"weft/internal/api"
	"weft/internal/nettest"
	"weft/internal/nettest/labtest"
)

// churnAddresses is the number of addresses of a host besides those of the lab; churnStarts is how often the daemon starts.
const (
	churnAddresses = 250
	churnStarts    = 16
)

// TestStartsUnderChurn: a host has many addresses, and other programs add and remove some all the time, which interrupts the
// kernel's lists. The daemon always starts, with the MTU that the underlay leaves, and pods are attached.
func TestStartsUnderChurn(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, nettest.Config{MTU: 1400})
	n := nodeOn(t, labtest.AddHost(t, lab, "a"))
	churn(t, n.Host)
	for i := range churnStarts {
		up(t, n, "--http-addr=")
		do(t, n, "wait", "--for", "ready", "--timeout", patience.String())
		if got, want := query[api.Status](t, n, "status").MTU, 1400-62; got != want {
			t.Errorf("start %d: pods have an MTU of %d bytes, want %d", i, got, want)
		}
		attach(t, n, fmt.Sprintf("p%d", i))
		if err := n.Stop(); err != nil {
			t.Fatal(err)
		}
	}
}

// churn gives a host many addresses, and adds and removes others until the test ends.
func churn(t *testing.T, h *nettest.Host) {
	t.Helper()
	var batch strings.Builder
	batch.WriteString("link add many type bridge\nlink set many up\n")
	for i := range churnAddresses {
		fmt.Fprintf(&batch, "addr add 203.0.113.%d/32 dev many\n", i+1)
	}
	cmd := h.Command(testContext(t), "ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(batch.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	ns, err := netns.GetFromPath(h.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	nl, err := netlink.NewHandleAt(ns)
	if err != nil {
		t.Fatal(err)
	}
	link, err := nl.LinkByName("many")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	t.Cleanup(func() {
		close(stop)
		wg.Wait()
		nl.Close()
	})
	wg.Go(func() { changeAddresses(t, nl, link, stop) })
}

// changeAddresses adds and removes an address until stop is closed.
func changeAddresses(t *testing.T, nl *netlink.Handle, link netlink.Link, stop <-chan struct{}) {
	addr, err := netlink.ParseAddr(netip.MustParsePrefix("198.51.100.1/32").String())
	if err != nil {
		t.Error(err)
		return
	}
	for {
		select {
		case <-stop:
			return
		default:
		}
		if err := nl.AddrAdd(link, addr); err != nil {
			t.Error(err)
			return
		}
		if err := nl.AddrDel(link, addr); err != nil {
			t.Error(err)
			return
		}
	}
}
