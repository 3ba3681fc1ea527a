package cni_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"weft/cni"
	"weft/internal/api"
	"weft/internal/ether"
	"weft/internal/podlink/linktest"
)

const (
	netns   = "/run/netns/pod"
	runtime = "/usr/bin/runtime" // that calls the plugin
)

// socket is a path without a listener. The queue of deletions is beside it.
var socket string

// fakeDaemon is a Daemon that leases addresses from memory. Its methods may be called concurrently.
type fakeDaemon struct {
	mu      sync.Mutex
	leases  map[string][]netip.Prefix
	next    int
	ready   bool
	exposed []netip.Prefix
	fail    error // returned by every call
	joinErr error // returned by Join
	ipam    api.IPAM
	joins   []api.JoinRequest

	reasons []string // of ReleaseBecause

	admitted []api.Admission
	admitErr error // returned by Admit and Admits
	admits   api.Admitted

	guarded   []api.GuardRequest
	unguarded []string
	guardErr  error // returned by Guard

	domain  string // of names; empty: of a daemon of an older version
	silent  bool   // it answers no queries
	named   []api.NameRequest
	nameErr error // returned by AddName
}

func newFakeDaemon() *fakeDaemon {
	return &fakeDaemon{leases: map[string][]netip.Prefix{}, next: 2, ready: true}
}

func (d *fakeDaemon) Socket() string { return socket }

func (d *fakeDaemon) Status(context.Context) (api.Status, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := api.Status{Ready: d.ready, Bridge: "weave", MTU: 1422, IPAM: api.IPAMWaiting, Exposed: d.exposed}
	s.Warnings = []string{"two nodes are missing: start them"}
	return s, d.fail
}

func (d *fakeDaemon) Join(_ context.Context, r api.JoinRequest) (api.Join, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.joins = append(d.joins, r)
	if err := errors.Join(d.fail, d.joinErr); err != nil {
		return api.Join{}, err
	}
	if d.leases[r.Owner] == nil {
		d.leases[r.Owner] = d.lease(r.IPs)
	}
	j := api.Join{Bridge: "weave", MTU: 1422, DNSDomain: d.domain, DNS: d.domain != "" && !d.silent}
	for _, p := range d.leases[r.Owner] {
		gw := netip.MustParseAddr("10.32.0.1")
		if p.Addr().Is6() {
			gw = netip.MustParseAddr("fd32::1")
		}
		j.Addresses = append(j.Addresses, api.Address{Address: p, Gateway: gw, MAC: ether.FromIP(p.Addr())})
	}
	return j, nil
}

func (d *fakeDaemon) lease(ips []string) (out []netip.Prefix) {
	if len(ips) == 0 {
		ips = []string{fmt.Sprintf("10.32.0.%d/12", d.next), fmt.Sprintf("fd32::%d/64", d.next)}
		d.next++
	}
	for _, ip := range ips {
		p, err := netip.ParsePrefix(ip)
		if err != nil {
			p = netip.PrefixFrom(netip.MustParseAddr(ip), 12)
		}
		out = append(out, p)
	}
	return out
}

func (d *fakeDaemon) Leases(_ context.Context, owner string) (out []api.Lease, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for o, ips := range d.leases {
		for _, ip := range ips {
			if owner == "" || owner == o {
				out = append(out, api.Lease{Owner: o, IP: ip})
			}
		}
	}
	return out, d.fail
}

func (d *fakeDaemon) Release(_ context.Context, owner, _ string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail != nil {
		return d.fail
	}
	if d.leases[owner] == nil {
		return &api.Problem{Kind: api.KindNotFound, Detail: "no such owner"}
	}
	delete(d.leases, owner)
	return nil
}

func (d *fakeDaemon) ReleaseBecause(ctx context.Context, owner, reason string) error {
	if err := d.Release(ctx, owner, ""); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reasons = append(d.reasons, reason)
	return nil
}

func (d *fakeDaemon) IPAM(context.Context) (api.IPAM, error) { return d.ipam, d.fail }

func (d *fakeDaemon) Admit(_ context.Context, a api.Admission) (api.Admitted, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.admitted = append(d.admitted, a)
	return d.admits, d.admitErr
}

func (d *fakeDaemon) Guard(_ context.Context, r api.GuardRequest) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.guarded = append(d.guarded, r)
	if d.guardErr == nil {
		return d.fail
	}
	return d.guardErr
}

func (d *fakeDaemon) Unguard(_ context.Context, owner string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.unguarded = append(d.unguarded, owner)
	return nil
}

func (d *fakeDaemon) AddName(_ context.Context, r api.NameRequest) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.named = append(d.named, r)
	return d.nameErr
}

func (d *fakeDaemon) Admits(context.Context) error { return d.admitErr }

// failJoin makes Join return err.
func (d *fakeDaemon) failJoin(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.joinErr = err
}

func (d *fakeDaemon) owners() (out []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for o := range d.leases {
		out = append(out, o)
	}
	slices.Sort(out)
	return out
}

// fakeExec is an address manager with one answer for each verb.
type fakeExec struct {
	version.PluginDecoder
	answers map[string]string
	errs    map[string]error
	calls   []string
	conf    []byte // of the last call
}

func (e *fakeExec) FindInPath(plugin string, _ []string) (string, error) {
	if plugin != "static" {
		return "", fmt.Errorf("failed to find plugin %q in path", plugin)
	}
	return "/opt/cni/bin/" + plugin, nil
}

func (e *fakeExec) ExecPlugin(_ context.Context, _ string, conf []byte, environ []string) ([]byte, error) {
	verb := ""
	for _, v := range environ { // the last one wins
		if after, ok := bytes.CutPrefix([]byte(v), []byte("CNI_COMMAND=")); ok {
			verb = string(after)
		}
	}
	e.calls, e.conf = append(e.calls, verb), conf
	return []byte(e.answers[verb]), e.errs[verb]
}

// bench is a plugin with fakes around it.
type bench struct {
	plugin *cni.Plugin
	daemon *fakeDaemon
	links  *linktest.Recorder
	exec   *fakeExec
	out    bytes.Buffer
}

func newBench() *bench {
	exec := &fakeExec{answers: map[string]string{}, errs: map[string]error{}}
	b := &bench{daemon: newFakeDaemon(), links: linktest.NewRecorder("weave"), exec: exec}
	b.links.AddNetns(netns)
	b.plugin = &cni.Plugin{Links: b.links, Dial: func(string) cni.Daemon { return b.daemon }, Exec: b.exec, Out: &b.out, Runtime: runtime}
	return b
}

// args returns the arguments of a call for container "c1" with further keys in the configuration.
func args(more ...string) *skel.CmdArgs {
	conf := map[string]any{"cniVersion": "1.1.0", "name": "net", "type": "weft", "other": "value"}
	for _, m := range more {
		if err := json.Unmarshal([]byte(m), &conf); err != nil {
			panic(err)
		}
	}
	stdin, err := json.Marshal(conf)
	if err != nil {
		panic(err)
	}
	return &skel.CmdArgs{ContainerID: "c1", Netns: netns, IfName: "eth0", StdinData: stdin}
}

// add runs ADD and returns its result.
func (b *bench) add(t *testing.T, a *skel.CmdArgs) *types100.Result {
	t.Helper()
	b.out.Reset()
	if err := b.plugin.Add(a); err != nil {
		t.Fatalf("ADD: %v", err)
	}
	res := &types100.Result{}
	if err := json.Unmarshal(b.out.Bytes(), res); err != nil {
		t.Fatalf("%v in %s", err, b.out.String())
	}
	return res
}

// wantCode fails the test unless err is a *types.Error with the code, which it returns.
func wantCode(t *testing.T, what string, err error, code uint) *types.Error {
	t.Helper()
	var e *types.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Errorf("%s: %v (%+v), want code %d", what, err, e, code)
		return &types.Error{}
	}
	return e
}

// wantNothing fails the test if a link or a lease is left.
func (b *bench) wantNothing(t *testing.T, what string) {
	t.Helper()
	if links, owners := b.links.HostLinks(), b.daemon.owners(); len(links)+len(owners) > 0 {
		t.Errorf("%s leaves links %v and leases of %v", what, links, owners)
	}
}
