package apiserver

import (
	"context"
	"net/http"
	"net/http/pprof"
	"net/netip"

	"weft/internal/api"
	"weft/internal/hint"
)

// socketHandler routes the API of the unix socket. Streams end with ctx.
func (s *Server) socketHandler(ctx context.Context) http.Handler {
	docs, leases, cluster, log := s.cfg.Documents, s.cfg.Leases, s.cfg.Cluster, s.log
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", show(log, docs.Status))
	mux.HandleFunc("GET /v1/peers", show(log, docs.Peers))
	mux.HandleFunc("GET /v1/ipam", show(log, docs.IPAM))
	mux.HandleFunc("PUT /v1/ipam", do(log, func(*http.Request, none) error { return cluster.Bootstrap() }))
	mux.HandleFunc("GET /v1/fdb", show(log, docs.FDB))
	mux.HandleFunc("GET /v1/routes", show(log, docs.Routes))
	mux.HandleFunc("GET /v1/wait", handle(log, s.wait))

	mux.HandleFunc("GET /v1/ip", handle(log, func(r *http.Request, _ none) ([]api.Lease, error) {
		return leases.Leases(r.URL.Query().Get("owner")), nil
	}))
	mux.HandleFunc("PUT /v1/ip", handle(log, func(r *http.Request, in api.AddressRequest) ([]api.Lease, error) {
		return leases.Allocate(r.Context(), in)
	}))
	mux.HandleFunc("DELETE /v1/ip", do(log, s.release))
	mux.HandleFunc("PUT /v1/join", handle(log, func(r *http.Request, in api.JoinRequest) (api.Join, error) {
		return leases.Join(r.Context(), in)
	}))
	mux.HandleFunc("PUT /v1/attachments", handle(log, func(r *http.Request, in api.AttachRequest) (api.Attachment, error) {
		return leases.Attach(r.Context(), in)
	}))
	mux.HandleFunc("DELETE /v1/attachments", do(log, func(r *http.Request, in api.AttachRequest) error {
		return leases.Detach(r.Context(), in)
	}))
	mux.HandleFunc("PUT /v1/guard", do(log, func(r *http.Request, in api.GuardRequest) error { return leases.Guard(r.Context(), in) }))
	mux.HandleFunc("DELETE /v1/guard", do(log, func(r *http.Request, _ none) error {
		return leases.Unguard(r.Context(), r.URL.Query().Get("owner"))
	}))
	mux.HandleFunc("PUT /v1/expose", handle(log, func(r *http.Request, in api.ExposeRequest) ([]api.Exposed, error) {
		return leases.Expose(r.Context(), in)
	}))
	mux.HandleFunc("DELETE /v1/expose", handle(log, func(*http.Request, none) (api.Hidden, error) { return leases.Hide() }))

	mux.HandleFunc("GET /v1/names", handle(log, s.names))
	mux.HandleFunc("PUT /v1/names", do(log, func(_ *http.Request, in api.NameRequest) error { return s.cfg.Names.AddName(in) }))
	mux.HandleFunc("DELETE /v1/names", do(log, func(_ *http.Request, in api.NameRequest) error { return s.cfg.Names.RemoveName(in) }))

	mux.HandleFunc("PUT /v1/targets", do(log, func(_ *http.Request, in api.TargetsRequest) error {
		return cluster.Connect(in.Targets, in.Replace)
	}))
	mux.HandleFunc("DELETE /v1/targets", do(log, func(_ *http.Request, in api.TargetsRequest) error { return cluster.Forget(in.Targets) }))
	mux.HandleFunc("PUT /v1/reload", handle(log, func(*http.Request, none) (api.Reload, error) { return cluster.Reload() }))
	mux.HandleFunc("GET /v1/revocations", show(log, cluster.Revocations))
	mux.HandleFunc("PUT /v1/revocations", handle(log, func(_ *http.Request, in api.RevocationsRequest) (api.RevocationsResult, error) {
		return cluster.Revoke(in)
	}))
	mux.HandleFunc("PUT /v1/reclaim", handle(log, func(r *http.Request, in api.ReclaimRequest) ([]api.Reclaimed, error) {
		return cluster.Reclaim(r.Context(), in.Peers)
	}))
	mux.HandleFunc("PUT /v1/leave", handle(log, func(r *http.Request, _ none) (api.LeaveResult, error) {
		return cluster.Leave(context.WithoutCancel(r.Context())) // a client that disconnects must not stop it half way
	}))

	mux.HandleFunc("GET /v1/checks", handle(log, func(r *http.Request, _ none) ([]api.Check, error) {
		return s.cfg.Diagnostics.Checks(r.Context()), nil
	}))
	mux.HandleFunc("GET /v1/report", handle(log, func(r *http.Request, _ none) (api.Report, error) { return s.report(r.Context()), nil }))
	mux.HandleFunc("GET /v1/capture", func(w http.ResponseWriter, r *http.Request) { s.capture(ctx, w, r) })
	mux.HandleFunc("GET /v1/top", func(w http.ResponseWriter, r *http.Request) { s.top(ctx, w, r) })
	// Profiles, for "go tool pprof": only on the socket, which belongs to root.
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

func (s *Server) release(r *http.Request, _ none) error {
	addr := netip.Addr{}
	if text := r.URL.Query().Get("ip"); text != "" {
		var err error
		if addr, err = parseAddr(text); err != nil {
			return err
		}
	}
	owner, reason := r.URL.Query().Get("owner"), r.URL.Query().Get("reason")
	if err := s.cfg.Leases.Release(owner, addr); err != nil {
		return err
	}
	if reason != "" {
		s.log.Info("ended a lease at the request of a client", "holder", owner, "reason", reason)
	}
	return nil
}

// names answers with all names, or those that the query selects by name or by address.
func (s *Server) names(r *http.Request, _ none) ([]api.Name, error) {
	q := r.URL.Query()
	switch {
	case q.Has("name"):
		return s.cfg.Names.NamesOf(q.Get("name"))
	case q.Has("ip"):
		addr, err := parseAddr(q.Get("ip"))
		if err != nil {
			return nil, err
		}
		return s.cfg.Names.NamesAt(addr.Unmap()), nil
	}
	return s.cfg.Names.AllNames(), nil
}

func parseAddr(text string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return addr, hint.New(hint.Invalid, "", "%q is not an IP address", text)
	}
	return addr, nil
}
