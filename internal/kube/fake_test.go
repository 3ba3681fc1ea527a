package kube

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"

	"weft/internal/api"
	"weft/internal/kube/firewall"
	"weft/internal/kube/policy"
	"weft/internal/peer"
)

// fakeFilter stores the rules of the last Apply.
type fakeFilter struct {
	mu      sync.Mutex
	rules   *policy.Ruleset // nil: flushed
	applied int
	looked  int // calls of Intact
	fail    error
}

var _ firewall.Firewall = (*fakeFilter)(nil)

func (f *fakeFilter) Apply(_ context.Context, r *policy.Ruleset) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return f.fail
	}
	f.rules, f.applied = r, f.applied+1
	return nil
}

func (f *fakeFilter) Change(_ context.Context, c policy.Change) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return f.fail
	}
	if f.rules == nil {
		return errors.New("the rules are unknown")
	}
	next := *f.rules
	if c.Rules != nil {
		next = *c.Rules
	}
	sets := map[string]policy.Set{}
	for name, set := range next.Sets {
		set.Prefixes = slices.DeleteFunc(slices.Concat(f.rules.Sets[name].Prefixes, c.Sets[name].Added), func(p netip.Prefix) bool {
			return slices.Contains(c.Sets[name].Removed, p)
		})
		sets[name] = set
	}
	next.Sets, f.rules = sets, &next
	f.applied++
	return nil
}

func (f *fakeFilter) Intact(context.Context) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.looked++
	return f.rules != nil, nil
}

// checks returns the number of calls of Intact.
func (f *fakeFilter) checks() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.looked
}

// has reports whether a set of the rules has an address.
func (f *fakeFilter) has(ip string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, set := range f.rules.Sets {
		if slices.ContainsFunc(set.Prefixes, func(p netip.Prefix) bool { return p.IsSingleIP() && p.Addr().String() == ip }) {
			return true
		}
	}
	return false
}

// link returns the port of that name in the rules.
func (f *fakeFilter) link(name string) policy.Link {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rules.Links[name]
}

func (f *fakeFilter) Dropped(context.Context) (map[policy.Direction]uint64, error) { return nil, nil }

// flush removes the rules, as nft flush ruleset does.
func (f *fakeFilter) flush() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = nil
}

// of returns the chains of a pod's address; not ok if nothing is enforced.
func (f *fakeFilter) of(ip string) (chains policy.PodChains, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.rules == nil {
		return chains, false
	}
	return f.rules.Pods[netip.MustParseAddr(ip)], true
}

// fakeDaemon is a Daemon in memory.
type fakeDaemon struct {
	mu        sync.Mutex
	status    api.Status
	peers     []api.Peer
	ipam      api.IPAM
	away      bool
	connected [][]string
	reclaimed [][]string
	refuse    error // of Reclaim
	guarded   []api.GuardRequest
	unknown   bool // no attachment can be guarded
}

func (d *fakeDaemon) Guard(_ context.Context, r api.GuardRequest) (err error) {
	return errors.Join(err, d.locked(func() {
		if d.unknown {
			err = &api.Problem{Kind: api.KindNotFound}
			return
		}
		d.guarded = append(d.guarded, r)
	}))
}

var errAway = errors.New("the daemon does not answer")

func (d *fakeDaemon) locked(f func()) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.away {
		return errAway
	}
	f()
	return nil
}

func (d *fakeDaemon) Status(context.Context) (s api.Status, err error) {
	return s, d.locked(func() { s = d.status })
}

func (d *fakeDaemon) Peers(context.Context) (p []api.Peer, err error) {
	err = d.locked(func() { p = d.peers })
	return p, err
}

func (d *fakeDaemon) IPAM(context.Context) (i api.IPAM, err error) {
	err = d.locked(func() { i = d.ipam })
	return i, err
}

func (d *fakeDaemon) Connect(_ context.Context, targets []string, _ bool) error {
	return d.locked(func() { d.connected = append(d.connected, targets) })
}

func (d *fakeDaemon) Reclaim(_ context.Context, peers []string) ([]api.Reclaimed, error) {
	err := d.locked(func() { d.reclaimed = append(d.reclaimed, peers) })
	return nil, errors.Join(err, d.refuse)
}

// with calls f with the daemon locked.
func (d *fakeDaemon) with(f func(d *fakeDaemon)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(d)
}

func idOf(b byte) peer.ID { return peer.ID{7: b} }

func newNode(name string, ip string, id byte) *corev1.Node {
	labels := map[string]string{corev1.LabelOSStable: "linux"}
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("uid-" + name), Labels: labels}}
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: name}, {Type: corev1.NodeInternalIP, Address: ip}}
	if id != 0 {
		n.Annotations = map[string]string{PeerAnnotation: idOf(id).String()}
	}
	return n
}

func newPod(name, node string, labels map[string]string, ips ...string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID("uid-" + name), Labels: labels}}
	p.Spec.NodeName = node
	p.Spec.Containers = []corev1.Container{{Name: "c"}}
	for _, ip := range ips {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: ip})
	}
	return p
}

// fakeLinks are links that a function says.
type fakeLinks func(name string) bool

func (f fakeLinks) Exists(name string) bool { return f(name) }

// fakeChanges are notifications of a test.
type fakeChanges chan struct{}

func (c fakeChanges) Changed() <-chan struct{} { return c }

func (c fakeChanges) Wait(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

// bench is the configuration of an agent, with fakes around it.
type bench struct {
	cfg    Config
	api    *fake.Clientset
	daemon *fakeDaemon
	filter *fakeFilter
}

func newBench(t *testing.T, objects ...runtime.Object) *bench {
	t.Helper()
	b := &bench{api: fake.NewClientset(objects...), daemon: &fakeDaemon{}, filter: &fakeFilter{}}
	b.daemon.status = api.Status{ID: idOf(1), Ready: true, Advertise: netip.MustParseAddrPort("172.30.0.11:6784")}
	b.cfg = Config{
		Node: "node1", StateDir: t.TempDir(), RunDir: t.TempDir(), API: b.api, Daemon: b.daemon, Filter: b.filter,
		Install: &Install{Guard: api.GuardPods}, Links: fakeLinks(func(string) bool { return false }),
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	return b
}
