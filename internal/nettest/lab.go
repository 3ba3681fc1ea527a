// Package nettest builds small networks out of Linux network namespaces: hosts joined by a switch, and pods on hosts.
//
//	           switch namespace, 192.168.77.254, fd77::fe
//	  ┌──────────────── bridge underlay ────────────────┐
//	port1                   port2                     port3
//	  │ veth                  │ veth                    │ veth
//	eth0 192.168.77.1       eth0 192.168.77.2         eth0 192.168.77.3
//	fd77::1                 fd77::2                   fd77::3
//	host "a"                host "b"                  host "c"
//
// A pod is an empty namespace that belongs to a host; joining the two is up to whoever is tested. Nothing in the
// namespace of the calling process changes. What is seen outside is a named namespace for each host and pod under
// /run/netns and a folder for state, all called wl-PID-N-…, so that a lab whose process was killed is recognised and
// removed by the next one.
//
// The package is for tests, the demo and the benchmark; it needs root, nsenter and, for Cut, nft. It does not import
// testing: labtest beside it does.
package nettest

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"sync/atomic"
)

// DefaultMTU is the underlay's MTU where Config says nothing.
const DefaultMTU = 1500

// prefix starts the names of everything that labs leave outside their namespaces.
const prefix = "wl-"

// maxHosts is how many addresses the underlay has for hosts.
const maxHosts = 250

// The underlay's addresses: hosts count up from .1 and ::1, the switch is the last.
var (
	underlay4 = netip.MustParsePrefix("192.168.77.0/24")
	underlay6 = netip.MustParsePrefix("fd77::/64")
	switch4   = netip.MustParseAddr("192.168.77.254")
	switch6   = netip.MustParseAddr("fd77::fe")
)

// labs counts the labs of this process, to tell their names apart.
var labs atomic.Int64

var goodName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,23}$`)

// Config describes a lab.
type Config struct {
	// MTU of the underlay; 0 means DefaultMTU.
	MTU int
}

// Lab is a network of hosts. Its methods may be called concurrently.
type Lab struct {
	// Constant after New.
	config   Config
	stem     string // "wl-PID-N", what all names start with
	dir      string
	underlay *Space

	// Guarded by mu.
	mu     sync.Mutex
	hosts  []*Host
	spaces []*Space // in order of creation, the switch first
	cut    bool     // the table of cuts is there
	closed bool
}

// New builds a lab that has a switch and no host yet. It first removes what labs of dead processes left behind.
// Close must be called in the end.
func New(c Config) (*Lab, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("nettest: a lab needs root")
	}
	if c.MTU == 0 {
		c.MTU = DefaultMTU
	}
	if err := removeStale(prefix); err != nil {
		return nil, err
	}
	l := &Lab{config: c, stem: fmt.Sprintf("%s%d-%d", prefix, os.Getpid(), labs.Add(1))}
	l.dir = filepath.Join(os.TempDir(), l.stem)
	if err := os.Mkdir(l.dir, 0o700); err != nil {
		return nil, fmt.Errorf("nettest: %w", err)
	}
	if err := l.addSwitch(); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Switch returns the namespace that the hosts are plugged into, which is their default gateway too: what is outside
// of the overlay's hosts.
func (l *Lab) Switch() *Space { return l.underlay }

// Dir returns a folder for files of the lab, which Close removes. Its path is short enough for unix sockets.
func (l *Lab) Dir() string { return l.dir }

// Hosts returns the hosts in the order in which they were added.
func (l *Lab) Hosts() []*Host {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.hosts)
}

// Close ends the processes that still run in the lab, removes all of its namespaces and its folder, and returns when
// they are gone. Closing again does nothing.
func (l *Lab) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	var errs []error
	for _, h := range l.hosts {
		h.killProcesses()
	}
	var names []string
	for _, s := range slices.Backward(l.spaces) {
		names = append(names, s.name)
	}
	errs = append(errs, removeSpaces(names))
	if err := os.RemoveAll(l.dir); err != nil {
		errs = append(errs, fmt.Errorf("nettest: %w", err))
	}
	return errors.Join(errs...)
}

// addSpace makes a namespace; l.mu is held, or l not shared yet.
func (l *Lab) addSpace(name string) (*Space, error) {
	if l.closed {
		return nil, errors.New("nettest: the lab is closed")
	}
	s := &Space{name: l.stem + "-" + name}
	if err := createSpace(s.name); err != nil {
		return nil, err
	}
	l.spaces = append(l.spaces, s)
	return s, s.prepare()
}
