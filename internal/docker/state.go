package docker

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/google/renameio/v2"

	"weft/internal/api"
	"weft/internal/ether"
)

// network is a Docker network on this host. Docker describes it once, when it is created.
type network struct {
	ID      string         `json:"id"`
	Subnets []netip.Prefix `json:"subnets"`
	// Gateways are the addresses that Docker has reserved as gateways.
	Gateways []netip.Addr `json:"gateways,omitempty"`
	// Claim says that Docker's own IPAM chooses the addresses, so that each has to be claimed.
	Claim       bool          `json:"claim,omitempty"`
	Guard       api.GuardMode `json:"guard"`
	MTU         int           `json:"mtu,omitempty"` // 0: that of the overlay
	NoMulticast bool          `json:"no_multicast,omitempty"`
	Created     time.Time     `json:"created"`
}

// endpoint is the interface of a container on a network.
type endpoint struct {
	ID      string       `json:"id"`
	Network string       `json:"network"`
	MAC     ether.Addr   `json:"mac"`
	Addrs   []netip.Addr `json:"addrs"`
	Created time.Time    `json:"created"`
	// Sandbox is the path of the network namespace of the container, since Join. Groups says that the interface has the route for groups.
	Sandbox string `json:"sandbox,omitempty"`
	Groups  bool   `json:"groups,omitempty"`
}

// content is what the state file contains.
type content struct {
	Networks  map[string]network  `json:"networks"`
	Endpoints map[string]endpoint `json:"endpoints"`
}

// state is the networks and endpoints of this host, in a file. Its methods may be called concurrently.
type state struct {
	path string

	mu sync.Mutex
	content
}

// openState reads the file at path. A file that does not exist is an empty one.
func openState(path string) (*state, error) {
	s := &state{path: path, content: content{Networks: map[string]network{}, Endpoints: map[string]endpoint{}}}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, fmt.Errorf("docker: the state: %w", err)
		}
		return s, nil
	} else if err != nil {
		return nil, fmt.Errorf("docker: the state: %w", err)
	}
	if err := json.Unmarshal(text, &s.content); err != nil {
		return nil, fmt.Errorf("docker: the state: %s: %w", path, err)
	}
	if s.Networks == nil {
		s.Networks = map[string]network{}
	}
	if s.Endpoints == nil {
		s.Endpoints = map[string]endpoint{}
	}
	return s, nil
}

// network returns a network by its ID.
func (s *state) network(id string) (network, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, ok := s.Networks[id]
	return n, ok
}

// networks returns all networks, in any order. The caller owns the slice.
func (s *state) networks() []network {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.Networks))
}

// endpoint returns an endpoint by its ID.
func (s *state) endpoint(id string) (endpoint, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.Endpoints[id]
	return e, ok
}

// endpoints returns all endpoints, in any order. The caller owns the slice.
func (s *state) endpoints() []endpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.Endpoints))
}

// putNetwork adds a network, unless it overlaps another one, which it returns.
func (s *state) putNetwork(n network) (other network, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.Networks {
		if o.ID != n.ID && overlap(o.Subnets, n.Subnets) {
			return o, errOverlap
		}
	}
	return network{}, s.change(func(c *content) { c.Networks[n.ID] = n })
}

// errOverlap is returned by putNetwork.
var errOverlap = errors.New("docker: the networks overlap")

func (s *state) deleteNetwork(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.change(func(c *content) { delete(c.Networks, id) })
}

func (s *state) putEndpoint(e endpoint) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.change(func(c *content) { c.Endpoints[e.ID] = e })
}

func (s *state) deleteEndpoint(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.change(func(c *content) { delete(c.Endpoints, id) })
}

// change applies a change and writes the file. On an error nothing has changed. The caller holds mu.
func (s *state) change(f func(*content)) error {
	next := content{Networks: maps.Clone(s.Networks), Endpoints: maps.Clone(s.Endpoints)}
	f(&next)
	text, err := json.Marshal(next)
	if err == nil {
		err = renameio.WriteFile(s.path, text, 0o600)
	}
	if err != nil {
		return fmt.Errorf("docker: write the state: %w", err)
	}
	s.content = next
	return nil
}

// overlap reports whether one of some subnets overlaps one of others.
func overlap(a, b []netip.Prefix) bool {
	return slices.ContainsFunc(a, func(x netip.Prefix) bool { return slices.ContainsFunc(b, x.Overlaps) })
}
