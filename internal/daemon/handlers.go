package daemon

import (
	"context"
	"errors"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"strings"

	"weft/internal/api"
	"weft/ipam"
	"weft/mesh"
)

// none is a request or an answer without a body.
type none = struct{}

// apiHandler routes the API of the unix socket.
func (d *Daemon) apiHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", handle(d.log, func(*http.Request, none) (api.Status, error) { return d.status(), nil }))
	mux.HandleFunc("GET /v1/peers", handle(d.log, func(*http.Request, none) ([]api.Peer, error) { return d.peers(), nil }))
	mux.HandleFunc("GET /v1/ipam", handle(d.log, func(*http.Request, none) (api.IPAM, error) { return d.ipamStatus(), nil }))
	mux.HandleFunc("GET /v1/fdb", handle(d.log, func(*http.Request, none) ([]api.FDBEntry, error) { return d.fdb(), nil }))
	mux.HandleFunc("GET /v1/routes", handle(d.log, func(*http.Request, none) ([]api.Route, error) { return d.routes(), nil }))
	mux.HandleFunc("GET /v1/wait", handle(d.log, d.handleWait))
	mux.HandleFunc("GET /v1/ip", handle(d.log, d.handleLeases))
	mux.HandleFunc("PUT /v1/ip", handle(d.log, d.handleAllocate))
	mux.HandleFunc("DELETE /v1/ip", handle(d.log, d.handleRelease))
	mux.HandleFunc("PUT /v1/join", handle(d.log, d.handleJoin))
	mux.HandleFunc("PUT /v1/attachments", handle(d.log, d.handleAttach))
	mux.HandleFunc("DELETE /v1/attachments", handle(d.log, d.handleDetach))
	mux.HandleFunc("PUT /v1/expose", handle(d.log, d.handleExpose))
	mux.HandleFunc("DELETE /v1/expose", handle(d.log, d.handleHide))
	mux.HandleFunc("GET /v1/names", handle(d.log, d.handleNames))
	mux.HandleFunc("PUT /v1/names", handle(d.log, d.handleAddName))
	mux.HandleFunc("DELETE /v1/names", handle(d.log, d.handleRemoveName))
	mux.HandleFunc("PUT /v1/targets", handle(d.log, d.handleConnect))
	mux.HandleFunc("DELETE /v1/targets", handle(d.log, d.handleForget))
	mux.HandleFunc("GET /v1/checks", handle(d.log, func(r *http.Request, _ none) ([]api.Check, error) { return d.checks(r.Context()), nil }))
	mux.HandleFunc("GET /v1/report", handle(d.log, d.handleReport))
	mux.HandleFunc("GET /v1/capture", d.handleCapture)
	mux.HandleFunc("PUT /v1/reload", handle(d.log, d.handleReload))
	mux.HandleFunc("PUT /v1/reclaim", handle(d.log, d.handleReclaim))
	mux.HandleFunc("PUT /v1/leave", handle(d.log, d.handleLeave))
	// Where the time goes, for "go tool pprof": on the socket only, which is root's.
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

func (d *Daemon) handleLeases(r *http.Request, _ none) ([]api.Lease, error) {
	if owner := r.URL.Query().Get("owner"); owner != "" {
		return leaseDocs(append(d.ipam.Lookup(owner), d.orphans.held(owner)...)), nil
	}
	return leaseDocs(d.ipam.Leases()), nil
}

func (d *Daemon) handleAllocate(r *http.Request, in api.AddressRequest) ([]api.Lease, error) {
	if err := checkOwner(in.Owner); err != nil {
		return nil, err
	}
	if err := d.orphans.handOver(in.Owner); err != nil {
		return nil, err
	}
	switch {
	case in.IP.IsValid():
		l, err := d.ipam.Claim(r.Context(), in.Owner, in.IP)
		return leasesOrProblem([]ipam.Lease{l}, err)
	case in.In.IsValid():
		l, err := d.ipam.Allocate(r.Context(), in.Owner, in.In)
		return leasesOrProblem([]ipam.Lease{l}, err)
	default:
		l, err := d.ipam.AllocateAll(r.Context(), in.Owner)
		return leasesOrProblem(l, err)
	}
}

func (d *Daemon) handleRelease(r *http.Request, _ none) (none, error) {
	owner, ip := r.URL.Query().Get("owner"), netip.Addr{}
	if err := checkOwner(owner); err != nil {
		return none{}, err
	}
	if s := r.URL.Query().Get("ip"); s != "" {
		var err error
		if ip, err = netip.ParseAddr(s); err != nil {
			return none{}, problem(api.KindInvalid, "", "%q is no IP address", s)
		}
	}
	return none{}, ipamProblem(d.release(owner, ip))
}

func (d *Daemon) handleConnect(_ *http.Request, in api.TargetsRequest) (none, error) {
	targets, err := d.parseTargets(in.Targets)
	if err != nil {
		return none{}, err
	}
	return none{}, d.mesh.Connect(targets, in.Replace)
}

func (d *Daemon) handleForget(_ *http.Request, in api.TargetsRequest) (none, error) {
	targets, err := d.parseTargets(in.Targets)
	if err != nil {
		return none{}, err
	}
	return none{}, d.mesh.Disconnect(targets)
}

func (d *Daemon) parseTargets(list []string) ([]mesh.Target, error) {
	targets := make([]mesh.Target, 0, len(list))
	for _, s := range list {
		t, err := mesh.ParseTarget(s, uint16(d.cfg.Port))
		if err != nil {
			return nil, problem(api.KindInvalid, "A peer is HOST or HOST:PORT, with an IPv6 address in brackets.", "%v", err)
		}
		targets = append(targets, t)
	}
	return targets, nil
}

// leaseDocs returns leases as documents; never nil, so that JSON has a list.
func leaseDocs(leases []ipam.Lease) []api.Lease {
	docs := make([]api.Lease, 0, len(leases))
	for _, l := range leases {
		docs = append(docs, api.Lease{Owner: l.Holder, IP: l.Prefix(), Since: l.Since})
	}
	return docs
}

func leasesOrProblem(leases []ipam.Lease, err error) ([]api.Lease, error) {
	if err != nil {
		return nil, ipamProblem(err)
	}
	return leaseDocs(leases), nil
}

// ipamProblem tells the client what kind of error ipam's is; nil stays nil.
func ipamProblem(err error) error {
	for _, k := range []struct {
		err  error
		kind api.Kind
		hint string
	}{
		{ipam.ErrExhausted, api.KindExhausted, "Release what is unused (\"weft ip list\" shows it on each node), or bring unreachable nodes back."},
		{ipam.ErrUnknownOwner, api.KindNotFound, "See the owners with \"weft ip list\"."},
		{ipam.ErrOutside, api.KindInvalid, "The ranges of the overlay are in \"weft ipam\"."},
		{ipam.ErrLeased, api.KindRefused, "Choose another address, or release that one."},
		{ipam.ErrUnreachable, api.KindRefused, "Choose another address, or bring that node back."},
		{ipam.ErrAlive, api.KindRefused, "Run \"weft leave\" there, or stop it first."},
		{ipam.ErrUnresponsive, api.KindRefused, "It goes on from there when you try again."},
		{ipam.ErrLeft, api.KindRefused, "Start the daemon again to join anew."},
		{ipam.ErrNoNewOwner, api.KindRefused, "See who is reachable with \"weft peers\" and try again."},
		{context.DeadlineExceeded, api.KindTimeout, "See what is missing with \"weft ipam\" and \"weft peers\"."},
	} {
		if errors.Is(err, k.err) {
			if h, ok := errors.AsType[hinted](err); ok {
				k.hint = h.Hint()
			}
			return problem(k.kind, k.hint, "%v", err)
		}
	}
	if err != nil {
		return problem(api.KindInternal, "See the daemon's log.", "%v", err)
	}
	return nil
}

// hinted is an error that knows what an operator can do about it.
type hinted interface {
	error
	Hint() string
}

// reservedPrefix starts the owners of leases that the daemon itself holds.
const reservedPrefix = "weft:"

// checkOwner refuses owners that a client may not speak for.
func checkOwner(owner string) error {
	switch {
	case owner == "":
		return problem(api.KindInvalid, "Name who the address is for.", "the owner is empty")
	case strings.HasPrefix(owner, orphanPrefix):
		return problem(api.KindInvalid, "It ends by itself when that pod is gone, and goes to who attaches it again.", "the owner %q is the daemon's own", owner)
	case strings.HasPrefix(owner, reservedPrefix):
		return problem(api.KindInvalid, "Use another owner; \"weft expose\" and \"weft hide\" change the bridge's own addresses.",
			"the owner %q is the daemon's own", owner)
	}
	return nil
}
