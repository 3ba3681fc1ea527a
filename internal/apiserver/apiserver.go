// Package apiserver serves a node over HTTP: the API on its unix socket, and on --http-addr metrics, health checks and the
// status page, which change nothing.
//
// It sees a node through the small interfaces of this file, and exchanges the documents of package api. It knows no engine.
package apiserver

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"weft/internal/api"
	"weft/internal/statuspage"
)

// All methods of these interfaces may be called from any goroutine. Errors that a client can act on are *hint.Error.

// Documents are what the read commands show. Lists are never nil, so that JSON has a list.
type Documents interface {
	Status() api.Status
	Peers() []api.Peer
	IPAM() api.IPAM
	FDB() []api.FDBEntry
	Routes() []api.Route
}

// Leases are the addresses of this node.
type Leases interface {
	Leases(owner string) []api.Lease
	Allocate(context.Context, api.AddressRequest) ([]api.Lease, error)
	Release(owner string, addr netip.Addr) error
	Join(context.Context, api.JoinRequest) (api.Join, error)
	Attach(context.Context, api.AttachRequest) (api.Attachment, error)
	Detach(context.Context, api.AttachRequest) error
	Guard(context.Context, api.GuardRequest) error
	Unguard(ctx context.Context, owner string) error
	Expose(context.Context, api.ExposeRequest) ([]api.Exposed, error)
	Hide() (api.Hidden, error)
}

// Names are the names of the overlay. A query by name or address returns only names that are answered.
type Names interface {
	AllNames() []api.Name
	NamesOf(name string) ([]api.Name, error)
	NamesAt(netip.Addr) []api.Name
	AddName(api.NameRequest) error
	RemoveName(api.NameRequest) error
}

// Cluster changes the node's part in the network.
type Cluster interface {
	Connect(targets []string, replace bool) error
	Forget(targets []string) error
	Reclaim(ctx context.Context, nodes []string) ([]api.Reclaimed, error)
	Leave(context.Context) (api.LeaveResult, error)
	Reload() (api.Reload, error)
	// Revocations returns the lists of revoked nodes. Revoke adopts one, if it is newer.
	Revocations() api.Revocations
	Revoke(api.RevocationsRequest) (api.RevocationsResult, error)
	// Bootstrap starts to divide the ranges that are not divided yet. It does not wait for the end.
	Bootstrap() error
	// Alive counts the live members, this node included.
	Alive() int
}

// Health says whether a pod could join now: Missing returns a phrase that says what is missing, or an empty string.
type Health interface {
	Missing() string
	// MissingAddresses is the same for the address range alone.
	MissingAddresses() string
}

// Captures starts captures of frames.
type Captures interface {
	StartCapture(api.CaptureRequest) (Capture, error)
}

// Capture is a capture of frames that runs until Close. Stream writes it until ctx ends.
type Capture interface {
	Stream(ctx context.Context, w io.Writer) error
	Close()
}

// Traffic measures the traffic with the peers, and samples its flows, for "weft top".
type Traffic interface {
	WatchTraffic() (TrafficWatch, error)
}

// TrafficWatch measures until Close. Next returns what passed since the last Next, or since the start.
type TrafficWatch interface {
	Next() api.Top
	Close()
}

// Diagnostics are what a bug report contains beside the documents.
type Diagnostics interface {
	Checks(context.Context) []api.Check
	Flags() map[string]string
	Log() []string
}

// Config is what a Server is made of. All fields but HTTP are required.
type Config struct {
	Socket net.Listener // of the API; the Server closes it
	HTTP   net.Listener // of metrics, health checks and status page; nil: none. The Server closes it

	Documents   Documents
	Leases      Leases
	Names       Names
	Cluster     Cluster
	Health      Health
	Captures    Captures
	Traffic     Traffic
	Diagnostics Diagnostics
	Metrics     prometheus.Gatherer
	Page        *statuspage.Page
	Logger      *slog.Logger
}

// Server serves one node.
type Server struct {
	cfg Config
	log *slog.Logger
}

// New returns a Server that answers once Run is called.
func New(cfg Config) *Server { return &Server{cfg: cfg, log: cfg.Logger} }

// Run answers requests until ctx ends. It ends streams with ctx, and lets other requests finish for a moment.
func (s *Server) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return serve(ctx, s.cfg.Socket, s.socketHandler(ctx), 0) })
	if s.cfg.HTTP != nil {
		group.Go(func() error { return s.cfg.Page.Run(ctx) })
		group.Go(func() error {
			return serve(ctx, newLimitedListener(s.cfg.HTTP, maxHTTPConns), s.httpHandler(), httpTimeout)
		})
	}
	return group.Wait()
}
