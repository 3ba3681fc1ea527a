// Package nettest builds small networks out of Linux network namespaces: hosts on a switch, and pods on hosts.
//
//	           switch namespace, 192.168.77.254, fd77::fe
//	  ┌──────────────── bridge underlay ────────────────┐
//	port1                   port2                     port3
//	  │ veth                  │ veth                    │ veth
//	eth0 192.168.77.1       eth0 192.168.77.2         eth0 192.168.77.3
//	fd77::1                 fd77::2                   fd77::3
//	host "a"                host "b"                  host "c"
//
// A pod is an empty namespace that belongs to a host; the program under test connects the two. The namespace of the
// calling process is not changed. Outside of its namespaces, a lab has a name under /run/netns for each host and pod, and
// a folder for state. All these names start with wl-PID-N-, so that the next lab can find and remove what is left of
// killed processes.
//
// The package is for tests, the demo and the benchmark. It needs root, nsenter and, for Cut, nft. It does not import
// testing; package labtest does.
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

// DefaultMTU is the MTU of the underlay if Config does not set one.
const DefaultMTU = 1500

// prefix begins the names of everything that labs create outside of their namespaces.
const prefix = "wl-"

// maxHosts is the maximum number of hosts, limited by the addresses of the underlay.
const maxHosts = 250

// Addresses of the underlay. Hosts start at .1 and ::1; the switch has the last address.
var (
	underlay4 = netip.MustParsePrefix("192.168.77.0/24")
	underlay6 = netip.MustParsePrefix("fd77::/64")
	switch4   = netip.MustParseAddr("192.168.77.254")
	switch6   = netip.MustParseAddr("fd77::fe")
)

// labs counts the labs of this process, which makes their names unique.
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
	stem     string // "wl-PID-N", the prefix of all names of this lab
	dir      string
	underlay *Space

	// Guarded by mu.
	mu     sync.Mutex
	hosts  []*Host
	spaces []*Space // in order of creation, the switch first
	cut    bool     // cutTable exists
	closed bool
}

// New builds a lab with a switch and without hosts. It first removes what labs of dead processes left behind. The caller
// must call Close.
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

// Switch returns the namespace of the switch, which is also the default gateway of the hosts. It represents the network
// outside of the cluster.
func (l *Lab) Switch() *Space { return l.underlay }

// Bridge returns the name of the bridge in the namespace of the switch.
func (l *Lab) Bridge() string { return bridgeName }

// SwitchAddr returns the IPv4 address of the switch, which is the hosts' default gateway.
func (l *Lab) SwitchAddr() netip.Addr { return switch4 }

// Dir returns a folder for files of the lab, which Close removes. Its path is short enough for Unix sockets.
func (l *Lab) Dir() string { return l.dir }

// Hosts returns the hosts in the order in which they were added.
func (l *Lab) Hosts() []*Host {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.hosts)
}

// Close kills the processes that run in the lab and removes its namespaces and its folder. It returns when all of them are
// gone. A second call does nothing.
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

// addSpace creates a namespace. The caller holds l.mu, unless l is not shared yet.
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
