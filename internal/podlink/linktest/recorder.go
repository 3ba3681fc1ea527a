// Package linktest has a podlink.Linker in memory, and a test suite for every Linker.
package linktest

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"weft/internal/ether"
	"weft/internal/podlink"
)

// defaultMTU is the MTU of an interface for a Spec without one, as in the kernel.
const defaultMTU = 1500

// Op names a method of podlink.Linker.
type Op string

// Methods that Fail accepts.
const (
	OpAttach    Op = "attach"
	OpAdopt     Op = "adopt"
	OpDetach    Op = "detach"
	OpCheck     Op = "check"
	OpConfirm   Op = "confirm"
	OpPairs     Op = "pairs"
	OpAddresses Op = "addresses"
)

// Recorder is a podlink.Linker that keeps bridges, namespaces and pairs in memory. Its methods may be called concurrently.
type Recorder struct {
	// Guarded by mu.
	mu      sync.Mutex
	bridges map[string]bool
	spaces  map[string]map[string]*pair // by path and interface; nil: not created by the Recorder
	hosts   map[string]*pair            // by name of the host end
	running map[string]bool             // by path: namespaces with a process
	fail    map[Op]error
	specs   []podlink.Spec
}

// pair is a veth pair, with its Spec and its result.
type pair struct {
	spec   podlink.Spec
	result podlink.Result
}

var _ podlink.Linker = (*Recorder)(nil)

// NewRecorder returns a host with the given bridges and without pod namespaces.
func NewRecorder(bridges ...string) *Recorder {
	r := &Recorder{bridges: map[string]bool{}, spaces: map[string]map[string]*pair{}, hosts: map[string]*pair{}, running: map[string]bool{},
		fail: map[Op]error{}}
	for _, b := range bridges {
		r.bridges[b] = true
	}
	return r
}

// AddNetns creates an empty namespace at path.
func (r *Recorder) AddNetns(path string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.spaces[path] = map[string]*pair{}
}

// RemoveNetns removes a namespace with its interfaces.
func (r *Recorder) RemoveNetns(path string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.spaces[path] {
		if p != nil {
			delete(r.hosts, p.spec.HostName)
		}
	}
	delete(r.spaces, path)
}

// Run starts a process in a namespace.
func (r *Recorder) Run(path string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running[path] = true
}

// AddOther adds an interface to a namespace as another program would.
func (r *Recorder) AddOther(path, ifname string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.spaces[path][ifname] = nil
}

// Fail makes a method return err from now on, or work again if err is nil.
func (r *Recorder) Fail(op Op, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail[op] = err
}

// HostLinks returns the names of all host ends, sorted.
func (r *Recorder) HostLinks() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.hosts))
}

// Attached returns the Specs of all calls of Attach, including failed ones.
func (r *Recorder) Attached() []podlink.Spec {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.specs)
}

// Attach implements podlink.Linker.
func (r *Recorder) Attach(ctx context.Context, s podlink.Spec) (podlink.Result, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.specs = append(r.specs, s)
	if err := r.refuse(ctx, OpAttach, s); err != nil {
		return podlink.Result{}, err
	}
	if _, taken := r.spaces[s.Netns][s.Ifname]; taken {
		return podlink.Result{}, fmt.Errorf("%w: %q", podlink.ErrExists, s.Ifname)
	}
	if r.hosts[s.HostName] != nil {
		return podlink.Result{}, fmt.Errorf("%w: %q", podlink.ErrExists, s.HostName)
	}
	s.Origin.NoHairpin = !s.Hairpin
	p := &pair{spec: s, result: podlink.Result{
		HostName: s.HostName, HostMAC: podlink.HostLinkMAC(s.HostName), MAC: s.PodMAC(), MTU: s.MTU,
		Routes: r.routes(s),
	}}
	if p.result.MTU == 0 {
		p.result.MTU = defaultMTU
	}
	for _, a := range s.Addresses {
		p.result.Addresses = append(p.result.Addresses, a.Prefix)
	}
	r.spaces[s.Netns][s.Ifname], r.hosts[s.HostName] = p, p
	return p.result, nil
}

// routes returns the routes of a pair. Other pairs of the namespace may have default routes already. The caller holds mu.
func (r *Recorder) routes(s podlink.Spec) (routes []podlink.Route) {
	others := map[bool]bool{} // by whether it is of IPv4
	for name, p := range r.spaces[s.Netns] {
		if name == s.Ifname || p == nil {
			continue
		}
		for _, route := range p.result.Routes {
			others[route.Dst.Addr().Is4()] = others[route.Dst.Addr().Is4()] || route.Dst.Bits() == 0
		}
	}
	for _, route := range s.Defaults() {
		if !others[route.Dst.Addr().Is4()] {
			routes = append(routes, route)
		}
	}
	if route, ok := s.Multicast(); ok && others[true] {
		routes = append(routes, route)
	}
	return append(routes, s.Routes...)
}

// refuse returns the error of Attach for s, nil if it succeeds. The caller holds mu.
func (r *Recorder) refuse(ctx context.Context, op Op, s podlink.Spec) error {
	if err := r.fail[op]; err != nil {
		return err
	}
	if err := s.Validate(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("podlink: %w", err)
	}
	if r.spaces[s.Netns] == nil {
		return fmt.Errorf("%w: %q", podlink.ErrNetns, s.Netns)
	}
	if !r.bridges[s.Bridge] {
		return fmt.Errorf("%w: %q", podlink.ErrNoBridge, s.Bridge)
	}
	return nil
}

// Adopt implements podlink.Linker.
func (r *Recorder) Adopt(ctx context.Context, s podlink.Spec, drop []netip.Addr) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.refuse(ctx, OpAdopt, s); err != nil {
		return err
	}
	p, ok := r.spaces[s.Netns][s.Ifname]
	switch {
	case !ok || r.hosts[s.HostName] == nil:
		return fmt.Errorf("%w: %q or %q", podlink.ErrNoLink, s.Ifname, s.HostName)
	case r.hosts[s.HostName] != p:
		return fmt.Errorf("%w: %q is not the other end of %q", podlink.ErrExists, s.Ifname, s.HostName)
	}
	p.spec.Bridge = s.Bridge
	p.result.MAC = s.PodMAC()
	for _, a := range s.Addresses {
		drop = append(slices.Clone(drop), a.Prefix.Addr()) // with another prefix length
	}
	p.result.Addresses = slices.DeleteFunc(p.result.Addresses, func(a netip.Prefix) bool { return slices.Contains(drop, a.Addr()) })
	if s.MTU != 0 {
		p.result.MTU = s.MTU
	}
	for i, a := range s.Addresses {
		if !slices.Contains(p.result.Addresses, a.Prefix) {
			p.result.Addresses = slices.Insert(p.result.Addresses, min(i, len(p.result.Addresses)), a.Prefix)
		}
	}
	routes := r.routes(s)
	for _, old := range p.result.Routes {
		if !slices.ContainsFunc(routes, func(route podlink.Route) bool { return route.Dst == old.Dst }) {
			routes = append(routes, old)
		}
	}
	p.result.Routes = routes
	return nil
}

// Detach implements podlink.Linker.
func (r *Recorder) Detach(ctx context.Context, netns, ifname, hostName string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.fail[OpDetach]; err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("podlink: %w", err)
	}
	p := r.hosts[hostName]
	if hostName == "" {
		p = r.spaces[netns][ifname]
		if p != nil && !strings.HasPrefix(p.spec.HostName, podlink.HostPrefix) {
			p = nil
		}
	}
	if p != nil {
		delete(r.hosts, p.spec.HostName)
		delete(r.spaces[p.spec.Netns], p.spec.Ifname)
	}
	return nil
}

// Check implements podlink.Linker.
func (r *Recorder) Check(s podlink.Spec) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.refuse(context.Background(), OpCheck, s); err != nil {
		return err
	}
	p := r.spaces[s.Netns][s.Ifname]
	switch {
	case p == nil:
		return fmt.Errorf("%w: %q", podlink.ErrNoLink, s.Ifname)
	case r.hosts[s.HostName] != p || p.spec.Bridge != s.Bridge:
		return fmt.Errorf("podlink: %s is not attached through %s to %s", s.Ifname, s.HostName, s.Bridge)
	case !s.MAC.IsZero() && s.MAC != p.result.MAC:
		return fmt.Errorf("podlink: %s has MAC %s, not %s", s.Ifname, p.result.MAC, s.MAC)
	case s.MTU != 0 && s.MTU != p.result.MTU:
		return fmt.Errorf("podlink: %s has MTU %d, not %d", s.Ifname, p.result.MTU, s.MTU)
	}
	for _, a := range s.Addresses {
		if !slices.Contains(p.result.Addresses, a.Prefix) {
			return fmt.Errorf("podlink: %s lacks the address %s", s.Ifname, a.Prefix)
		}
	}
	for _, route := range r.routes(s) {
		if !slices.Contains(p.result.Routes, route) {
			return fmt.Errorf("podlink: no route to %s via %s", route.Dst, route.Gateway)
		}
	}
	return nil
}

// Confirm implements podlink.Linker.
func (r *Recorder) Confirm(hostName string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.fail[OpConfirm]; err != nil {
		return err
	}
	p := r.hosts[hostName]
	if p == nil {
		return fmt.Errorf("%w: %q", podlink.ErrNoLink, hostName)
	}
	p.spec.Origin.Pending = false
	return nil
}

// Pairs implements podlink.Linker.
func (r *Recorder) Pairs() ([]podlink.Pair, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.fail[OpPairs]; err != nil {
		return nil, err
	}
	var pairs []podlink.Pair
	for name, p := range r.hosts {
		pairs = append(pairs, podlink.Pair{HostName: name, Origin: p.spec.Origin, Running: r.running[p.spec.Netns]})
	}
	return pairs, nil
}

// Addresses implements podlink.Linker.
func (r *Recorder) Addresses(netns, ifname string) ([]netip.Prefix, ether.Addr, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.fail[OpAddresses]; err != nil {
		return nil, ether.Addr{}, err
	}
	space, ok := r.spaces[netns]
	if !ok {
		return nil, ether.Addr{}, fmt.Errorf("%w: %q", podlink.ErrNetns, netns)
	}
	p, ok := space[ifname]
	if !ok {
		return nil, ether.Addr{}, fmt.Errorf("%w: %q", podlink.ErrNoLink, ifname)
	}
	if p == nil {
		return nil, ether.Addr{}, nil
	}
	return slices.Clone(p.result.Addresses), p.result.MAC, nil
}
