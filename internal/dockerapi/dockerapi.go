// Package dockerapi asks a Docker Engine on this host about its containers and networks, over the unix socket of its API. Podman answers
// the same requests. See https://docs.docker.com/reference/api/engine/.
package dockerapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"syscall"

	"weft/internal/ether"
)

// DefaultSocket is where an engine listens unless it was configured otherwise.
const DefaultSocket = "/run/docker.sock"

// maxBody bounds the body of an answer, in bytes.
const maxBody = 64 << 20

// Errors of a Client.
var (
	// ErrNoEngine means that nothing listens at the socket.
	ErrNoEngine = errors.New("no Docker Engine answers")
	// ErrNotFound means that there is no container or network of that name or ID.
	ErrNotFound = errors.New("no such container or network")
)

// Client sends requests to one engine. Its methods may be called concurrently.
type Client struct {
	socket string
	http   *http.Client
	// pidFile exists while the engine runs, if it ever did: sawPid.
	pidFile string
	sawPid  atomic.Bool
}

// WithPidFile makes the client send nothing after the engine has ended, which it knows by this file, until there is one again: a service
// manager that listens in place of the engine would start it.
func (c *Client) WithPidFile(path string) *Client {
	c.pidFile = path
	return c
}

// ended reports whether the engine is known to have ended.
func (c *Client) ended() bool {
	if c.pidFile == "" {
		return false
	}
	_, err := os.Stat(c.pidFile)
	if err == nil {
		c.sawPid.Store(true)
	}
	return errors.Is(err, fs.ErrNotExist) && c.sawPid.Load()
}

// NewClient returns a client of the engine at a socket.
func NewClient(socket string) *Client {
	var d net.Dialer
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", socket) },
		// A stream of events keeps its connection, and requests are rare.
		DisableKeepAlives: true,
	}}}
}

// Socket returns the path that the client connects to.
func (c *Client) Socket() string { return c.socket }

// Container is what the engine knows about a container.
type Container struct {
	ID      string // 64 hexadecimal digits
	Name    string
	Running bool
	// Pid is the ID of its first process, in the namespace of the engine; 0: it does not run.
	Pid int
	// Failure is why it could not be started the last time.
	Failure string
	// RestartPolicy is "always", "unless-stopped", "on-failure", "no", or empty.
	RestartPolicy string
	// Service is the name of the service of a swarm that it is a replica of; empty: none.
	Service   string
	Endpoints []Endpoint
}

// serviceLabel is the label that a swarm gives to replicas.
const serviceLabel = "com.docker.swarm.service.name"

// Endpoint is the attachment of a container to a network.
type Endpoint struct {
	Network   string // name of the network
	NetworkID string
	ID        string // empty: the container does not run
	MAC       ether.Addr
	Addrs     []netip.Addr
	Aliases   []string
}

// Network is what the engine knows about a network.
type Network struct {
	ID     string
	Name   string
	Driver string
}

// Container returns a container by its name or ID, or the beginning of its ID. The error wraps ErrNotFound and ErrNoEngine.
func (c *Client) Container(ctx context.Context, name string) (Container, error) {
	var doc struct {
		ID    string `json:"Id"`
		Name  string
		State struct {
			Running bool
			Pid     int
			Error   string
		}
		HostConfig      struct{ RestartPolicy struct{ Name string } }
		Config          struct{ Labels map[string]string }
		NetworkSettings struct {
			Networks map[string]struct {
				NetworkID, EndpointID, MacAddress, IPAddress, GlobalIPv6Address string
				Aliases                                                         []string
			}
		}
	}
	if err := c.get(ctx, "/containers/"+url.PathEscape(name)+"/json", nil, &doc); err != nil {
		return Container{}, err
	}
	out := Container{
		ID: doc.ID, Name: strings.TrimPrefix(doc.Name, "/"), Running: doc.State.Running, Pid: doc.State.Pid,
		Failure: doc.State.Error, RestartPolicy: doc.HostConfig.RestartPolicy.Name, Service: doc.Config.Labels[serviceLabel],
	}
	for name, n := range doc.NetworkSettings.Networks {
		e := Endpoint{Network: name, NetworkID: n.NetworkID, ID: n.EndpointID, Aliases: n.Aliases}
		e.MAC, _ = ether.ParseAddr(n.MacAddress) // empty where the container does not run
		for _, text := range []string{n.IPAddress, n.GlobalIPv6Address} {
			if a, err := netip.ParseAddr(text); err == nil {
				e.Addrs = append(e.Addrs, a)
			}
		}
		out.Endpoints = append(out.Endpoints, e)
	}
	return out, nil
}

// ContainersOn returns the IDs of the containers of networks, given by their IDs, whether they run or not.
func (c *Client) ContainersOn(ctx context.Context, networks []string) ([]string, error) {
	if len(networks) == 0 {
		return nil, nil
	}
	filters, err := json.Marshal(map[string][]string{"network": networks})
	if err != nil {
		return nil, fmt.Errorf("dockerapi: %w", err)
	}
	var docs []struct {
		ID string `json:"Id"`
	}
	if err := c.get(ctx, "/containers/json", url.Values{"all": {"1"}, "filters": {string(filters)}}, &docs); err != nil {
		return nil, err
	}
	ids := make([]string, 0, len(docs))
	for _, d := range docs {
		ids = append(ids, d.ID)
	}
	return ids, nil
}

// Networks returns all networks.
func (c *Client) Networks(ctx context.Context) (list []Network, err error) {
	var docs []struct {
		ID     string `json:"Id"`
		Name   string
		Driver string
	}
	if err := c.get(ctx, "/networks", nil, &docs); err != nil {
		return nil, err
	}
	for _, d := range docs {
		list = append(list, Network{ID: d.ID, Name: d.Name, Driver: d.Driver})
	}
	return list, nil
}

// Start starts a container that does not run. One that runs is success.
func (c *Client) Start(ctx context.Context, id string) error {
	resp, err := c.send(ctx, http.MethodPost, "/containers/"+url.PathEscape(id)+"/start", nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// Watch calls changed once the engine answers, and after each event of a container or a network, until ctx or the connection ends. It
// returns why.
func (c *Client) Watch(ctx context.Context, changed func()) error {
	filters := `{"type":["container","network"]}`
	resp, err := c.send(ctx, http.MethodGet, "/events", url.Values{"filters": {filters}})
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	changed()
	events := json.NewDecoder(resp.Body)
	for {
		var event struct{ Action string }
		if err := events.Decode(&event); err != nil {
			return fmt.Errorf("dockerapi: reading events: %w", err)
		}
		if !strings.HasPrefix(event.Action, "exec_") { // of health checks
			changed()
		}
	}
}

// get decodes the answer of a request.
func (c *Client) get(ctx context.Context, path string, query url.Values, out any) error {
	resp, err := c.send(ctx, http.MethodGet, path, query)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxBody)).Decode(out); err != nil {
		return fmt.Errorf("dockerapi: %s: %w", path, err)
	}
	return nil
}

// send sends a request and returns its answer, with a body that the caller closes.
func (c *Client) send(ctx context.Context, method, path string, query url.Values) (*http.Response, error) {
	if c.ended() {
		return nil, fmt.Errorf("%w at %s", ErrNoEngine, c.socket)
	}
	u, err := url.Parse("http://docker" + path)
	if err != nil {
		return nil, fmt.Errorf("dockerapi: %w", err)
	}
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, method, u.String(), http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("dockerapi: %w", err)
	}
	resp, err := c.http.Do(req)
	switch {
	case err == nil && resp.StatusCode < http.StatusBadRequest:
		return resp, nil
	case err == nil:
	case ctx.Err() == nil && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)):
		return nil, fmt.Errorf("%w at %s", ErrNoEngine, c.socket)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("this user may not use the socket %s: %w", c.socket, fs.ErrPermission)
	default:
		return nil, fmt.Errorf("dockerapi: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	var problem struct{ Message string }
	_ = json.NewDecoder(io.LimitReader(resp.Body, maxBody)).Decode(&problem) // without a message the status has to do
	if resp.StatusCode == http.StatusNotFound {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, problem.Message)
	}
	return nil, fmt.Errorf("dockerapi: %s: %s: %s", path, resp.Status, problem.Message)
}
