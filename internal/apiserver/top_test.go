package apiserver

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"weft/internal/api"
)

// fakeTraffic is a Traffic with empty documents.
type fakeTraffic struct{ closed chan struct{} }

func (f *fakeTraffic) WatchTraffic() (TrafficWatch, error) { return f, nil }
func (f *fakeTraffic) Close()                              { close(f.closed) }
func (f *fakeTraffic) Next() api.Top                       { return api.Top{} }

// topServer returns a client for a Server that ends streams with ctx.
func topServer(t *testing.T, ctx context.Context, f *fakeTraffic) *api.Client {
	t.Helper()
	s := &Server{cfg: Config{Traffic: f}, log: slog.New(slog.DiscardHandler)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/top", func(w http.ResponseWriter, r *http.Request) { s.top(ctx, w, r) })
	return serveTest(t, mux)
}

// TestTopStream: a stream has as many documents as the request asks for. When the server stops, the client gets an error. In each
// case the sampling ends.
func TestTopStream(t *testing.T) {
	request := api.TopRequest{Interval: api.MinTopInterval, Count: 2}
	f := &fakeTraffic{closed: make(chan struct{})}
	n := 0
	if err := topServer(t, t.Context(), f).Top(t.Context(), request, func(api.Top) error { n++; return nil }); err != nil || n != 2 {
		t.Errorf("%d documents, %v", n, err)
	}
	<-f.closed

	f = &fakeTraffic{closed: make(chan struct{})}
	ctx, stop := context.WithCancel(t.Context())
	err := topServer(t, ctx, f).Top(t.Context(), api.TopRequest{Interval: api.MinTopInterval}, func(api.Top) error { stop(); return nil })
	if !errors.Is(err, api.ErrTopEnded) {
		t.Errorf("the server stops: %v", err)
	}
	<-f.closed

	f = &fakeTraffic{closed: make(chan struct{})}
	enough := errors.New("enough")
	if err := topServer(t, t.Context(), f).Top(t.Context(), request, func(api.Top) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("the client stops: %v", err)
	}
	<-f.closed
	for _, interval := range []time.Duration{0, time.Millisecond, 2 * time.Hour} {
		if err := topServer(t, t.Context(), f).Top(t.Context(), api.TopRequest{Interval: interval}, nil); err == nil {
			t.Errorf("the interval %s is accepted", interval)
		}
	}
}
