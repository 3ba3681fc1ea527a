package api

import (
	"bytes"
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
	"strconv"
	"strings"
	"syscall"
	"time"

	"weft/internal/hint"
)

// maxBody bounds the body of an answer, in bytes.
const maxBody = 64 << 20

// daemonPoll is the time between two attempts while no daemon answers, or while the node is starting.
const daemonPoll = 100 * time.Millisecond

// absencePatience is how long requests that add something wait for a daemon that does not listen yet: scripts start it in the background
// and go on.
const absencePatience = 2 * time.Second

// ErrNoDaemon means that nothing listens at the socket. Errors of a Client wrap it.
var ErrNoDaemon = errors.New("no weft daemon answers")

// ErrOldDaemon means that the daemon is of an older version, which does not know the request.
var ErrOldDaemon = errors.New("the daemon is of an older version")

// Client sends requests to the daemon on this host. Its methods may be called concurrently. Errors that the daemon returns are
// *Problem.
type Client struct {
	socket   string
	http     *http.Client
	patience time.Duration // how long requests wait for a node that is still starting
}

// NewClient returns a client of the daemon at a socket. If the path is empty, it is that in SocketEnv, or else DefaultSocket.
func NewClient(socket string) *Client {
	if socket == "" {
		socket = os.Getenv(SocketEnv)
	}
	if socket == "" {
		socket = DefaultSocket
	}
	var d net.Dialer
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return d.DialContext(ctx, "unix", socket)
		},
		DisableKeepAlives: true,
	}}}
}

// WithPatience returns a client that waits for a node that is still starting, at most for d a request. Requests that add an attachment,
// an address, a name or a target also wait for a daemon that does not listen yet, for two seconds of it at most.
func (c *Client) WithPatience(d time.Duration) *Client {
	patient := *c
	patient.patience = d
	return &patient
}

// Socket returns the path that the client connects to.
func (c *Client) Socket() string { return c.socket }

// Status returns a summary of the node.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	return s, c.do(ctx, http.MethodGet, "status", nil, nil, &s)
}

// Peers returns all members of the network, including this node.
func (c *Client) Peers(ctx context.Context) (p []Peer, err error) {
	return p, c.do(ctx, http.MethodGet, "peers", nil, nil, &p)
}

// IPAM returns the shares of all nodes in the ranges.
func (c *Client) IPAM(ctx context.Context) (i IPAM, err error) {
	return i, c.do(ctx, http.MethodGet, "ipam", nil, nil, &i)
}

// FDB returns the learned MAC addresses.
func (c *Client) FDB(ctx context.Context) (f []FDBEntry, err error) {
	return f, c.do(ctx, http.MethodGet, "fdb", nil, nil, &f)
}

// Routes returns the next hop to each peer.
func (c *Client) Routes(ctx context.Context) (r []Route, err error) {
	return r, c.do(ctx, http.MethodGet, "routes", nil, nil, &r)
}

// Leases returns the leases of owner, or all leases of the node if owner is empty.
func (c *Client) Leases(ctx context.Context, owner string) (l []Lease, err error) {
	q := url.Values{}
	if owner != "" {
		q.Set("owner", owner)
	}
	return l, c.do(ctx, http.MethodGet, "ip", q, nil, &l)
}

// Allocate leases addresses to a holder.
func (c *Client) Allocate(ctx context.Context, r AddressRequest) (l []Lease, err error) {
	return l, c.awaitDaemon(ctx, func() error { return c.do(ctx, http.MethodPut, "ip", nil, r, &l) })
}

// Release ends the lease of ip to owner, or all leases of owner if ip is empty.
func (c *Client) Release(ctx context.Context, owner, ip string) error {
	q := url.Values{"owner": {owner}}
	if ip != "" {
		q.Set("ip", ip)
	}
	return c.do(ctx, http.MethodDelete, "ip", q, nil, nil)
}

// ReleaseBecause ends all leases of owner. The daemon logs the reason.
func (c *Client) ReleaseBecause(ctx context.Context, owner, reason string) error {
	return c.do(ctx, http.MethodDelete, "ip", url.Values{"owner": {owner}, "reason": {reason}}, nil, nil)
}

// Join leases the addresses of a namespace that joins the overlay.
func (c *Client) Join(ctx context.Context, r JoinRequest) (j Join, err error) {
	return j, c.do(ctx, http.MethodPut, "join", nil, r, &j)
}

// Admit waits until policies are in force for a pod, and returns what its annotations say. It is for a client of weft-kube's socket.
func (c *Client) Admit(ctx context.Context, a Admission) (r Admitted, err error) {
	return r, c.do(ctx, http.MethodPut, "pods", nil, a, &r)
}

// Guard sets what the port of a container may send, and returns once that is in force. The error wraps ErrOldDaemon if the daemon
// has no guard.
func (c *Client) Guard(ctx context.Context, r GuardRequest) error {
	return oldDaemon(c.do(ctx, http.MethodPut, "guard", nil, r, nil))
}

// Unguard ends the guard of a container after its interface is gone. A container without one is success.
func (c *Client) Unguard(ctx context.Context, owner string) error {
	return oldDaemon(c.do(ctx, http.MethodDelete, "guard", url.Values{"owner": {owner}}, nil, nil))
}

// oldDaemon wraps ErrOldDaemon around the error of a request that the daemon does not know.
func oldDaemon(err error) error {
	if p, ok := errors.AsType[*Problem](err); ok && p.Kind == KindInternal && isUnknownRequest(err) {
		return fmt.Errorf("%w: %w", ErrOldDaemon, err)
	}
	return err
}

// Admits returns nil if pods can be admitted now. It is for a client of weft-kube's socket.
func (c *Client) Admits(ctx context.Context) error {
	return c.do(ctx, http.MethodGet, "ready", nil, nil, nil)
}

// Attach makes the daemon attach a namespace to the overlay.
func (c *Client) Attach(ctx context.Context, r AttachRequest) (a Attachment, err error) {
	return a, c.awaitDaemon(ctx, func() error { return c.do(ctx, http.MethodPut, "attachments", nil, r, &a) })
}

// Detach makes the daemon detach a namespace from the overlay.
func (c *Client) Detach(ctx context.Context, r AttachRequest) error {
	return c.do(ctx, http.MethodDelete, "attachments", nil, r, nil)
}

// Expose adds an address to the bridge, sets what happens to packets from outside the overlay, and returns the leases of the address.
func (c *Client) Expose(ctx context.Context, r ExposeRequest) (l []Exposed, err error) {
	return l, c.awaitDaemon(ctx, func() error { return c.do(ctx, http.MethodPut, "expose", nil, r, &l) })
}

// awaitDaemon makes a request, and makes it again while no daemon listens and the patience of the client lasts.
func (c *Client) awaitDaemon(ctx context.Context, request func() error) error {
	deadline := time.Now().Add(min(c.patience, absencePatience))
	for {
		err := request()
		if !errors.Is(err, ErrNoDaemon) || !time.Now().Before(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(daemonPoll):
		}
	}
}

// Hide removes the addresses of the bridge.
func (c *Client) Hide(ctx context.Context) (h Hidden, err error) {
	return h, c.do(ctx, http.MethodDelete, "expose", nil, nil, &h)
}

// Names returns the names of all nodes, only those equal to name if it is not empty, and only those of ip if it is valid.
func (c *Client) Names(ctx context.Context, name string, ip netip.Addr) (n []Name, err error) {
	q := url.Values{}
	if name != "" {
		q.Set("name", name)
	}
	if ip.IsValid() {
		q.Set("ip", ip.String())
	}
	return n, c.do(ctx, http.MethodGet, "names", q, nil, &n)
}

// AddName adds a name to addresses.
func (c *Client) AddName(ctx context.Context, r NameRequest) error {
	return c.awaitDaemon(ctx, func() error { return c.do(ctx, http.MethodPut, "names", nil, r, nil) })
}

// RemoveName removes a name from addresses.
func (c *Client) RemoveName(ctx context.Context, r NameRequest) error {
	return c.do(ctx, http.MethodDelete, "names", nil, r, nil)
}

// Connect adds persistent targets, or replaces all of them.
func (c *Client) Connect(ctx context.Context, targets []string, replace bool) error {
	return c.awaitDaemon(ctx, func() error {
		return c.do(ctx, http.MethodPut, "targets", nil, TargetsRequest{Targets: targets, Replace: replace}, nil)
	})
}

// Forget removes persistent targets.
func (c *Client) Forget(ctx context.Context, targets []string) error {
	return c.do(ctx, http.MethodDelete, "targets", nil, TargetsRequest{Targets: targets}, nil)
}

// Bootstrap starts to divide the ranges that are not divided yet. It does not wait for the end.
func (c *Client) Bootstrap(ctx context.Context) error {
	return c.do(ctx, http.MethodPut, "ipam", nil, nil, nil)
}

// Wait blocks until a condition holds (WaitReady, WaitIPAM or WaitPeers and a number), at most for timeout. For WaitIPAM it first calls
// Bootstrap. It also waits for a daemon that does not run yet; the error wraps ErrNoDaemon where none appears.
func (c *Client) Wait(ctx context.Context, what string, timeout time.Duration) (w WaitResult, err error) {
	deadline := time.Now().Add(timeout)
	for {
		var err error
		if what == WaitIPAM {
			if err = c.Bootstrap(ctx); isUnknownRequest(err) {
				err = nil // a daemon of an older version, which starts the bootstrap with the wait
			}
		}
		if err == nil {
			q := url.Values{"for": {what}, "timeout": {time.Until(deadline).String()}}
			err = c.do(ctx, http.MethodGet, "wait", q, nil, &w)
		}
		if !errors.Is(err, ErrNoDaemon) || time.Now().After(deadline) {
			return w, err
		}
		select {
		case <-ctx.Done():
			return w, ctx.Err()
		case <-time.After(daemonPoll):
		}
	}
}

// isUnknownRequest reports whether the daemon does not know a request.
func isUnknownRequest(err error) bool {
	p, ok := errors.AsType[*Problem](err)
	return ok && (p.Status == http.StatusNotFound || p.Status == http.StatusMethodNotAllowed)
}

// Revocations returns the lists of revoked nodes that the node has.
func (c *Client) Revocations(ctx context.Context) (r Revocations, err error) {
	return r, c.do(ctx, http.MethodGet, "revocations", nil, nil, &r)
}

// Revoke hands a signed list of revoked nodes to the node.
func (c *Client) Revoke(ctx context.Context, in RevocationsRequest) (r RevocationsResult, err error) {
	return r, c.do(ctx, http.MethodPut, "revocations", nil, in, &r)
}

// Reload makes the node read its configuration and secret file again.
func (c *Client) Reload(ctx context.Context) (r Reload, err error) {
	return r, c.do(ctx, http.MethodPut, "reload", nil, nil, &r)
}

// Leave makes the node hand its address space over, leave the network and stop.
func (c *Client) Leave(ctx context.Context) (l LeaveResult, err error) {
	return l, c.do(ctx, http.MethodPut, "leave", nil, nil, &l)
}

// Reclaim takes over the address space of dead nodes, each an ID or a nickname.
func (c *Client) Reclaim(ctx context.Context, peers []string) (r []Reclaimed, err error) {
	return r, c.do(ctx, http.MethodPut, "reclaim", nil, ReclaimRequest{Peers: peers}, &r)
}

// Checks returns the checks of the host that the node makes with its own settings and rights.
func (c *Client) Checks(ctx context.Context) (r []Check, err error) {
	return r, c.do(ctx, http.MethodGet, "checks", nil, nil, &r)
}

// Report returns the content of a bug report.
func (c *Client) Report(ctx context.Context) (r Report, err error) {
	return r, c.do(ctx, http.MethodGet, "report", nil, nil, &r)
}

// Capture returns a stream of frames in pcapng. The caller must close it.
func (c *Client) Capture(ctx context.Context, r CaptureRequest) (io.ReadCloser, error) {
	q := url.Values{"peer": {r.Peer}, "filter": {r.Filter}, "count": {strconv.Itoa(r.Count)}, "snaplen": {strconv.Itoa(r.Snaplen)}}
	resp, err := c.send(ctx, http.MethodGet, "capture", q, nil)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// do sends one request. If in is not nil, it is the body. If out is not nil, the answer is decoded into it.
func (c *Client) do(ctx context.Context, method, path string, query url.Values, in, out any) error {
	resp, err := c.send(ctx, method, path, query, in)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return fmt.Errorf("api: read the daemon's answer: %w", err)
	}
	if out == nil || len(text) == 0 {
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("api: decode the daemon's answer: %w", err)
	}
	return nil
}

// send sends a request and returns the answer, as sendOnce does. It repeats the request while the node is still starting, and the
// patience of the client lasts.
func (c *Client) send(ctx context.Context, method, path string, query url.Values, in any) (*http.Response, error) {
	deadline := time.Now().Add(c.patience)
	for {
		resp, err := c.sendOnce(ctx, method, path, query, in)
		if p, ok := errors.AsType[*Problem](err); !ok || p.Kind != KindStarting || time.Now().After(deadline) {
			return resp, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(daemonPoll):
		}
	}
}

// sendOnce sends one request and returns the answer. The caller must close its body. An answer with an error status is returned as
// an error, usually a *Problem.
func (c *Client) sendOnce(ctx context.Context, method, path string, query url.Values, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("api: encode the request: %w", err)
		}
		body = bytes.NewReader(text)
	}
	u := url.URL{Scheme: "http", Host: "weft", Path: "/v1/" + path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() == nil && (errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED)) {
			return nil, hint.New(hint.NoDaemon, "Start it with \"weft up\", or name its socket with --socket or "+SocketEnv+".", "%w at %s",
				ErrNoDaemon, c.socket)
		}
		if errors.Is(err, fs.ErrPermission) {
			return nil, hint.New(hint.Refused, "Run the command as root, for example with sudo.", "this user may not use the socket %s", c.socket)
		}
		return nil, fmt.Errorf("api: request to the daemon at %s: %w", c.socket, err)
	}
	if resp.StatusCode < http.StatusBadRequest {
		return resp, nil
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return nil, fmt.Errorf("api: read the daemon's answer: %w", err)
	}
	return nil, problemOf(resp, text)
}

// problemOf returns the error of an answer: a *hint.Error that wraps the *Problem.
func problemOf(resp *http.Response, text []byte) error {
	p := &Problem{Kind: KindInternal, Status: resp.StatusCode}
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "application/problem+json") {
		if err := json.Unmarshal(text, p); err != nil {
			return fmt.Errorf("api: decode the daemon's error: %w", err)
		}
	}
	return &hint.Error{Kind: p.Kind, Err: p, Hint: p.Hint}
}
