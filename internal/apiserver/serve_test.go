package apiserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weft/internal/api"
	"weft/internal/hint"
)

// serveTest runs a handler on a unix socket, as the daemon does, and returns a client for it.
func serveTest(t *testing.T, h http.Handler) *api.Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sub", "weft.sock")
	l, err := ListenSocket(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket mode %v, %v; want 0600", info.Mode(), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- serve(ctx, l, h, 0) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return api.NewClient(path)
}

func TestProblemsReachTheClient(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	for _, tt := range []struct {
		err  error
		kind hint.Kind
		text string
	}{
		{hint.New(hint.Refused, "Do that.", "cannot"), hint.Refused, "cannot"},
		{hint.Refuse("--mtu", "Do that.", "too small"), hint.Refused, "--mtu: too small"}, // of a reload
		{errors.New("disk on fire"), hint.Internal, "disk on fire"},
		{fmt.Errorf("outer: %w", hint.New(hint.Exhausted, "Wait.", "none left")), hint.Exhausted, "outer: none left"},
		{hint.New(hint.NotFound, "List them.", "unknown"), hint.NotFound, "unknown"},
		{hint.New(hint.Starting, "Wait.", "starting"), hint.Starting, "starting"},
	} {
		mux := http.NewServeMux()
		mux.HandleFunc("PUT /v1/join", handle(log, func(*http.Request, api.JoinRequest) (api.Join, error) { return api.Join{}, tt.err }))
		_, err := serveTest(t, mux).Join(t.Context(), api.JoinRequest{Owner: "x"})
		p, ok := errors.AsType[*api.Problem](err)
		if !ok || p.Kind != tt.kind || !strings.Contains(p.Detail, tt.text) || p.Status != statusOf[tt.kind] {
			t.Errorf("%v arrived as %#v (%v)", tt.err, p, err)
		}
	}
}

func TestBadRequestsAreInvalid(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", handle(log, func(*http.Request, api.JoinRequest) (none, error) { return none{}, nil }))
	_, err := serveTest(t, mux).Status(t.Context()) // without a body, where one is wanted
	if p, ok := errors.AsType[*api.Problem](err); !ok || p.Kind != api.KindInvalid {
		t.Errorf("got %v, want an invalid request", err)
	}
}

// TestLargeRequests: requests up to the limit are read, such as the targets of a cluster with thousands of nodes; larger ones are refused
// with the limit.
func TestLargeRequests(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	var got int
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /v1/targets", do(log, func(_ *http.Request, in api.TargetsRequest) error { got = len(in.Targets); return nil }))
	client := serveTest(t, mux)
	const target = "[2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff]"
	most := maxRequest/(len(target)+len(`"",`)) - 1
	for n, ok := range map[int]bool{1: true, 1001: true, 5000: true, most: true, most + 2: false} {
		targets := make([]string, n)
		for i := range targets {
			targets[i] = target
		}
		err := client.Connect(t.Context(), targets, true)
		if ok && (err != nil || got != n) {
			t.Errorf("%d targets: %d arrived, %v", n, got, err)
		}
		if p, problem := errors.AsType[*api.Problem](err); !ok && (!problem || !strings.Contains(p.Detail, fmt.Sprint(maxRequest))) {
			t.Errorf("%d targets: %v", n, err)
		}
	}
}

func TestClientWithoutADaemon(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none.sock")
	_, err := api.NewClient(path).Status(t.Context())
	if !errors.Is(err, api.ErrNoDaemon) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v, want ErrNoDaemon with the path", err)
	}
}

func TestListenSocketReplacesOneLeftBehind(t *testing.T) {
	path := filepath.Join(t.TempDir(), "weft.sock")
	old, err := net.Listen("unix", path) //nolint:noctx // binds and stays behind
	if err != nil {
		t.Fatal(err)
	}
	old.(*net.UnixListener).SetUnlinkOnClose(false)
	old.Close()
	l, err := ListenSocket(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
}
