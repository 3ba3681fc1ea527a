package dns

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestResolverOrder: a resolver that does not reply is asked last, and tried again by one query after growing pauses.
func TestResolverOrder(t *testing.T) {
	const timeout = 2 * time.Second
	a, b := netip.MustParseAddrPort("192.0.2.1:53"), netip.MustParseAddrPort("192.0.2.2:53")
	now := time.Unix(1000, 0)
	var s resolverStates
	expect := func(what string, tcp bool, want ...attempt) {
		t.Helper()
		if diff := cmp.Diff(want, s.order([]netip.AddrPort{a, b}, tcp, timeout, now), cmp.AllowUnexported(attempt{}),
			cmp.Comparer(func(x, y netip.AddrPort) bool { return x == y })); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	expect("at first", false, attempt{a, timeout}, attempt{b, timeout})
	s.failed(a, false, now, now)
	s.failed(a, false, now.Add(-time.Second), now) // a query that was sent earlier
	expect("after a failure", false, attempt{b, timeout}, attempt{a, timeout})
	expect("over the other protocol", true, attempt{a, timeout}, attempt{b, timeout})
	now = now.Add(retryMin)
	expect("after the pause", false, attempt{a, retryTimeout}, attempt{b, timeout})
	expect("at the same time", false, attempt{b, timeout}, attempt{a, timeout})
	s.failed(a, false, now, now)
	now = now.Add(retryMin)
	expect("after the same pause again", false, attempt{b, timeout}, attempt{a, timeout})
	now = now.Add(retryMin)
	expect("after twice the pause", false, attempt{a, retryTimeout}, attempt{b, timeout})
	for range 20 {
		s.failed(a, false, now, now)
		now = now.Add(retryMax)
	}
	expect("after the longest pause", false, attempt{a, retryTimeout}, attempt{b, timeout})
	s.replied(a, false)
	expect("when it has replied", false, attempt{a, timeout}, attempt{b, timeout})

	s.failed(a, false, now, now)
	s.failed(b, false, now, now)
	expect("when none replies", false, attempt{a, timeout}, attempt{b, timeout})
	s.order([]netip.AddrPort{b}, false, timeout, now)
	expect("when it was removed and is back", false, attempt{a, timeout}, attempt{b, timeout})
}

// TestSilentResolver: only the first query waits for a resolver that does not reply.
func TestSilentResolver(t *testing.T) {
	mute, good := startUpstream(t, silent), startUpstream(t, answering("192.0.2.7"))
	s, at := start(t, 1, mute.addr, good.addr)
	for range 5 {
		if got := resolve(t, "udp", at[0]); got != "192.0.2.7" {
			t.Errorf("got %s", got)
		}
	}
	if got := mute.questions(); got != "udp Example.com." {
		t.Errorf("the resolver that does not reply was asked: %s", got)
	}
	if n := s.counts.forwarded.Load(); n != 5 {
		t.Errorf("%d forwarded", n)
	}
}

// TestResolvConfIsReplaced: another file of the same size and time is noticed, behind a symlink, at the same path, or in place.
func TestResolvConfIsReplaced(t *testing.T) {
	dir := t.TempDir()
	write := func(name, server string) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte("nameserver "+server+"\n"), 0o600))
		must(t, os.Chtimes(path, epoch, epoch))
		return path
	}
	conf := resolvConf{path: filepath.Join(dir, "resolv.conf")}
	expect := func(what, want string) {
		t.Helper()
		if got := conf.servers(); len(got) != 1 || got[0] != addr(want) {
			t.Errorf("%s: %v, want %s", what, got, want)
		}
	}
	must(t, os.Symlink(write("a", "192.0.2.1"), conf.path))
	expect("a symlink", "192.0.2.1")
	must(t, os.Symlink(write("b", "192.0.2.2"), conf.path+".new"))
	must(t, os.Rename(conf.path+".new", conf.path))
	expect("another symlink", "192.0.2.2")
	must(t, os.Rename(write("c", "192.0.2.3"), conf.path))
	expect("a file", "192.0.2.3")
	write("resolv.conf", "192.0.2.4")
	expect("written in place", "192.0.2.4")
}
