package docker

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"weft/internal/api"
	"weft/internal/dockerapi"
	"weft/internal/ether"
	"weft/internal/hint"
	"weft/internal/leases/deletions"
	"weft/internal/peer"
	"weft/internal/podlink"
)

// fakeDaemon is a daemon that owns all of a range.
type fakeDaemon struct {
	mu     sync.Mutex
	ranges []netip.Prefix
	leases []api.Lease
	guards map[string]api.GuardRequest
	names  []api.Name
	away   bool
	fail   map[string]error // by method
}

func (d *fakeDaemon) begin(method string) (end func(), err error) {
	d.mu.Lock()
	switch {
	case d.away:
		err = hint.New(hint.NoDaemon, "Start it.", "%w at /run/weft/weft.sock", api.ErrNoDaemon)
	case d.fail[method] != nil:
		err = d.fail[method]
	}
	return d.mu.Unlock, err
}

// self is the ID of the node.
var self = peer.ID{1}

func (d *fakeDaemon) Status(context.Context) (api.Status, error) {
	end, err := d.begin("Status")
	defer end()
	return api.Status{
		ID:     self,
		Name:   "self",
		Bridge: "weave",
		MTU:    1400,
		Range:  slices.Clone(d.ranges),
		Guard:  api.GuardStatus{Mode: api.GuardHost},
	}, err
}

func (d *fakeDaemon) Leases(_ context.Context, owner string) (list []api.Lease, err error) {
	end, err := d.begin("Leases")
	defer end()
	for _, l := range d.leases {
		if owner == "" || l.Owner == owner {
			list = append(list, l)
		}
	}
	return list, err
}

func (d *fakeDaemon) Allocate(_ context.Context, r api.AddressRequest) ([]api.Lease, error) {
	end, err := d.begin("Allocate")
	defer end()
	if err != nil {
		return nil, err
	}
	leaseOf := func(a netip.Addr) *api.Lease {
		for i, l := range d.leases {
			if l.IP.Addr() == a {
				return &d.leases[i]
			}
		}
		return nil
	}
	if r.IP.IsValid() {
		if l := leaseOf(r.IP); l != nil && l.Owner != r.Owner {
			return nil, problem(api.KindRefused, "%s is leased to %q on this node", r.IP, l.Owner)
		} else if l != nil {
			return []api.Lease{*l}, nil
		}
		d.leases = append(d.leases, api.Lease{Owner: r.Owner, IP: netip.PrefixFrom(r.IP, 12), Since: time.Now()})
		return d.leases[len(d.leases)-1:], nil
	}
	for _, l := range d.leases {
		if l.Owner == r.Owner && r.In.Contains(l.IP.Addr()) {
			return []api.Lease{l}, nil
		}
	}
	for a := r.In.Masked().Addr().Next(); r.In.Contains(a.Next()); a = a.Next() {
		if leaseOf(a) == nil {
			d.leases = append(d.leases, api.Lease{Owner: r.Owner, IP: netip.PrefixFrom(a, r.In.Bits()), Since: time.Now()})
			return d.leases[len(d.leases)-1:], nil
		}
	}
	return nil, problem(api.KindExhausted, "no address left in %s", r.In)
}

// problem is an error as the client of the API returns it.
func problem(kind api.Kind, format string, args ...any) error {
	p := &api.Problem{Kind: kind, Detail: fmt.Sprintf(format, args...), Hint: "Do something."}
	return &hint.Error{Kind: kind, Err: p, Hint: p.Hint}
}

func (d *fakeDaemon) Release(_ context.Context, owner, ip string) error {
	end, err := d.begin("Release")
	defer end()
	if err != nil {
		return err
	}
	before := len(d.leases)
	d.leases = slices.DeleteFunc(d.leases, func(l api.Lease) bool { return l.Owner == owner && (ip == "" || l.IP.Addr().String() == ip) })
	d.names = slices.DeleteFunc(d.names, func(n api.Name) bool { return n.Owner == owner && (ip == "" || n.IP.String() == ip) })
	if ip == "" {
		delete(d.guards, owner)
	}
	if len(d.leases) == before {
		return problem(api.KindNotFound, "%q holds no address", owner)
	}
	return nil
}

func (d *fakeDaemon) Expose(context.Context, api.ExposeRequest) ([]api.Exposed, error) {
	end, err := d.begin("Expose")
	defer end()
	return nil, err
}

func (d *fakeDaemon) Guard(_ context.Context, r api.GuardRequest) error {
	end, err := d.begin("Guard")
	defer end()
	if err == nil {
		d.guards[r.Owner] = r
	}
	return err
}

func (d *fakeDaemon) Unguard(_ context.Context, owner string) error {
	end, err := d.begin("Unguard")
	defer end()
	if err == nil {
		delete(d.guards, owner)
	}
	return err
}

func (d *fakeDaemon) Names(context.Context, string, netip.Addr) ([]api.Name, error) {
	end, err := d.begin("Names")
	defer end()
	return slices.Clone(d.names), err
}

func (d *fakeDaemon) AddName(_ context.Context, r api.NameRequest) error {
	end, err := d.begin("AddName")
	defer end()
	for _, a := range r.IPs {
		d.names = append(d.names, api.Name{Name: r.Name, IP: a, Node: self, NodeName: "self", Owner: r.Owner})
	}
	return err
}

func (d *fakeDaemon) RemoveName(_ context.Context, r api.NameRequest) error {
	end, err := d.begin("RemoveName")
	defer end()
	d.names = slices.DeleteFunc(
		d.names,
		func(n api.Name) bool { return n.Name == r.Name && n.Owner == r.Owner && slices.Contains(r.IPs, n.IP) },
	)
	return err
}

// elsewhere publishes a network of another node.
func (d *fakeDaemon) elsewhere(name, subnet, node string) {
	p := netip.MustParsePrefix(subnet)
	d.names = append(d.names, api.Name{
		Name: fmt.Sprintf("%s.%d.networks", name, p.Bits()), IP: p.Addr().Next(), Node: peer.ID{node[0]}, NodeName: node,
	})
}

// fakeLinks makes no interfaces. In a container, an interface has no temporary name any more.
type fakeLinks struct {
	mu    sync.Mutex
	exist map[string]string // temporary name by host end; empty: it is in a container
	fail  error
	crash bool // Offer ends the plugin
}

func (l *fakeLinks) Offer(_ context.Context, s podlink.Spec) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.crash {
		panic("killed")
	}
	if l.fail != nil {
		return l.fail
	}
	if _, ok := l.exist[s.HostName]; ok {
		return fmt.Errorf("%w: %q", podlink.ErrExists, s.HostName)
	}
	l.exist[s.HostName] = s.Ifname
	return nil
}

func (l *fakeLinks) Remove(_ context.Context, hostName string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.exist, hostName)
	return nil
}

func (l *fakeLinks) Exists(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for host, temporary := range l.exist {
		if name == host || name == temporary && temporary != "" {
			return true
		}
	}
	return false
}

func (l *fakeLinks) Announce(context.Context, string, ether.Addr) error { return nil }

// fakeEngine is a Docker Engine that knows what a test says.
type fakeEngine struct {
	networks   []dockerapi.Network
	containers []dockerapi.Container
	busy       string // ID of the container that it does not answer for, as while it starts
	// meanwhile is called while it answers for a container; nil: nothing.
	meanwhile func()
	mu        sync.Mutex
	started   []string // guarded by mu
}

func (e *fakeEngine) Networks(context.Context) ([]dockerapi.Network, error) { return e.networks, nil }

func (e *fakeEngine) ContainersOn(context.Context, []string) (ids []string, err error) {
	for _, c := range e.containers {
		ids = append(ids, c.ID)
	}
	return ids, nil
}

func (e *fakeEngine) Container(_ context.Context, name string) (dockerapi.Container, error) {
	if e.meanwhile != nil {
		e.meanwhile()
	}
	if name == e.busy {
		return dockerapi.Container{}, context.DeadlineExceeded
	}
	for _, c := range e.containers {
		if c.ID == name {
			return c, nil
		}
	}
	return dockerapi.Container{}, dockerapi.ErrNotFound
}

func (e *fakeEngine) Start(_ context.Context, id string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.started = append(e.started, id)
	slices.Sort(e.started)
	return nil
}

func (e *fakeEngine) Watch(ctx context.Context, changed func()) error {
	changed()
	<-ctx.Done()
	return ctx.Err()
}

// bench is a plugin between fakes.
type bench struct {
	*Plugin
	daemon *fakeDaemon
	links  *fakeLinks
	engine *fakeEngine
	dir    string
}

func newBench(t testing.TB) *bench {
	t.Helper()
	b := &bench{
		daemon: &fakeDaemon{
			ranges: []netip.Prefix{netip.MustParsePrefix("10.32.0.0/12"), netip.MustParsePrefix("fd32::/64")},
			guards: map[string]api.GuardRequest{}, fail: map[string]error{},
		},
		links: &fakeLinks{exist: map[string]string{}}, engine: &fakeEngine{}, dir: t.TempDir(),
	}
	b.open(t)
	return b
}

// open makes the plugin, again with the state of the one before.
func (b *bench) open(t testing.TB) {
	t.Helper()
	p, err := New(Config{
		Driver: DriverName, StateFile: b.dir + "/docker.json", Daemon: b.daemon, Deletions: deletions.Open(b.dir + "/weft.sock"),
		Links: b.links, Patience: time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	b.Plugin = p
}
