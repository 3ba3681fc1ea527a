package kubernetes

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"weft/internal/netspace"
)

// maxLoss is the maximum time without a reply while weft is replaced, on a machine of two cores that runs the whole cluster.
const maxLoss = 2 * time.Second

// requestTimeout is how long a client waits for an answer. TCP repeats the first packet after 1 and 3 seconds, and both nodes are replaced,
// one after the other: a shorter time would count a client that only waits as one that failed.
const requestTimeout = 4 * time.Second

// load is how traffic from p1 to p2, on another node, has fared during a change.
type load struct {
	ping     time.Duration // longest time between replies to pings
	requests int           // HTTP requests to the Service, each over a connection of its own
	failed   int           // those without an answer within requestTimeout
	gap      time.Duration // longest time between answers
	broken   int           // how often a connection that was open broke
}

func (r load) String() string {
	return fmt.Sprintf("longest time without a reply %d ms (pings every 50 ms); %d of %d requests to a Service failed, longest time "+
		"without an answer %d ms; an open connection broke %d times", r.ping.Milliseconds(), r.failed, r.requests, r.gap.Milliseconds(), r.broken)
}

// check reports an interruption.
func (r load) check(t *recorder) {
	t.Helper()
	if r.ping > maxLoss {
		t.Errorf("pods were unreachable for %v", r.ping)
	}
	if r.failed > 0 || r.broken > 0 {
		t.Errorf("%s", r)
	}
}

// underLoad runs f during pings and requests from p1 to p2.
func (l *lab) underLoad(t testing.TB, f func()) (result load) {
	t.Helper()
	ns := l.podSpace(t, 1, "p1")
	service := l.ips(t, "service", "p2")[0]
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var all sync.WaitGroup
	all.Go(func() { result.request(ctx, ns, hostPort(service, 80)) })
	all.Go(func() { result.keepOpen(ctx, ns, hostPort(l.ip(t, "p2"), 8080)) })
	result.ping = l.pinging(t, f)
	cancel()
	all.Wait()
	return result
}

// client returns an HTTP client in a network namespace. opened is called for each connection.
func client(ns netns.NsHandle, keepOpen bool, opened func()) *http.Client {
	dial := func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		opened()
		err = netspace.Do(ns, func() (err error) {
			conn, err = (&net.Dialer{Timeout: requestTimeout}).DialContext(ctx, network, address)
			return err
		})
		return conn, err
	}
	transport := &http.Transport{DialContext: dial, DisableKeepAlives: !keepOpen, MaxConnsPerHost: 1}
	return &http.Client{Timeout: requestTimeout, Transport: transport}
}

// fetch sends one request, and reads the answer.
func fetch(ctx context.Context, c *http.Client, address string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/hostname", nil)
	if err != nil {
		return err
	}
	answer, err := c.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	_, err = io.Copy(io.Discard, answer.Body)
	return err
}

// every calls f 20 times a second until the context ends.
func every(ctx context.Context, f func()) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			f()
		}
	}
}

// request counts requests over connections of their own.
func (r *load) request(ctx context.Context, ns netns.NsHandle, address string) {
	c := client(ns, false, func() {})
	last := time.Now()
	every(ctx, func() {
		err := fetch(ctx, c, address)
		if ctx.Err() != nil {
			return
		}
		r.requests++
		if err != nil {
			r.failed++
			return
		}
		r.gap = max(r.gap, time.Since(last))
		last = time.Now()
	})
}

// keepOpen counts how often a connection with a request now and then has to be opened again.
func (r *load) keepOpen(ctx context.Context, ns netns.NsHandle, address string) {
	opened := 0
	c := client(ns, true, func() { opened++ })
	every(ctx, func() { _ = fetch(ctx, c, address) })
	r.broken = opened - 1
}

// pinging runs f during a ping from p1 to p2 and returns the longest time without a reply.
func (l *lab) pinging(t testing.TB, f func()) time.Duration {
	t.Helper()
	var out strings.Builder
	ping := exec.CommandContext(t.Context(), "ping", "-D", "-i", "0.05", l.ip(t, "p2").String())
	ping.Stdout = &out
	if err := netspace.Do(l.podSpace(t, 1, "p1"), ping.Start); err != nil {
		t.Fatal(err)
	}
	f()
	_ = ping.Process.Signal(os.Interrupt)
	_ = ping.Wait()
	longest, err := longestGap(out.String())
	if err != nil {
		t.Fatal(err)
	}
	return longest
}

// longestGap returns the longest time between two replies in the output of "ping -D".
func longestGap(out string) (time.Duration, error) {
	var last, longest float64
	for line := range strings.Lines(out) {
		var at float64
		if n, _ := fmt.Sscanf(line, "[%f] 64 bytes", &at); n == 1 {
			if last > 0 {
				longest = max(longest, at-last)
			}
			last = at
		}
	}
	if last == 0 {
		return 0, fmt.Errorf("no reply: %s", out)
	}
	return time.Duration(longest * float64(time.Second)), nil
}

// TestLongestGap needs no cluster.
func TestLongestGap(t *testing.T) {
	const out = "PING 10.0.0.1\n[100.000000] 64 bytes from 10.0.0.1: icmp_seq=1\n[100.050000] 64 bytes from 10.0.0.1: icmp_seq=2\n" +
		"[100.750000] 64 bytes from 10.0.0.1: icmp_seq=16\n\n--- 10.0.0.1 ping statistics ---\n"
	if got, err := longestGap(out); err != nil || got.Round(time.Millisecond) != 700*time.Millisecond {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := longestGap("PING 10.0.0.1\n"); err == nil {
		t.Error("no error without a reply")
	}
	if got := hostPort(netip.MustParseAddr("fd00::1"), 80); got != "[fd00::1]:80" {
		t.Error(got)
	}
}
