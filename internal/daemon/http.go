package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"weft/internal/statuspage"
)

// httpHandler serves what may be seen from elsewhere; nothing there changes anything.
func (d *Daemon) httpHandler(page *statuspage.Page) http.Handler {
	mux := http.NewServeMux()
	registry := d.registry(d.mesh.Members, d.kernelSample)
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if !d.ready() {
			http.Error(w, "not ready: "+d.missing(), http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "ready")
	})
	page.Register(mux)
	return ownNames(d.http.Addr(), mux)
}

// serveHTTP serves what may be seen from elsewhere until ctx ends.
func (d *Daemon) serveHTTP(ctx context.Context) error {
	page, err := statuspage.New(statuspage.Config{Source: pageSource{d}, Logger: d.log})
	if err != nil {
		return errors.Join(err, d.http.Close())
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return page.Run(ctx) })
	group.Go(func() error { return serve(ctx, newBounded(d.http, maxHTTPConns), d.httpHandler(page), httpPatience) })
	return group.Wait()
}

// missing says why the node is not ready.
func (d *Daemon) missing() string {
	p := d.plane.Load()
	if p == nil {
		return "the data plane is not up yet"
	}
	if !p.rulesTried() {
		return "the rules for what leaves the overlay are not set yet"
	}
	if waiting := d.ipam.Status().WaitingFor; waiting != "" {
		return "waiting for " + waiting
	}
	return "the address range is not divided yet"
}
