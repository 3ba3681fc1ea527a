package api

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// TestClientWaitsForTheStart: a client with patience repeats a request until the node has started, and one without does not. Other
// errors end a request at once.
func TestClientWaitsForTheStart(t *testing.T) {
	for _, tt := range []struct {
		problem  string
		patience time.Duration
		requests int32
		ok       bool
	}{
		{`{"type":"starting"}`, time.Hour, 3, true},
		{`{"type":"starting"}`, 0, 1, false},
		{`{"type":"refused"}`, time.Hour, 1, false},
	} {
		socket := filepath.Join(t.TempDir(), "weft.sock")
		l, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		var requests atomic.Int32
		handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if requests.Add(1) == 3 {
				w.WriteHeader(http.StatusNoContent)
				return
			}
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = w.Write([]byte(tt.problem))
		})
		server := &httptest.Server{Listener: l, Config: &http.Server{Handler: handler}} //nolint:gosec // a test
		server.Start()
		_, err = NewClient(socket).WithPatience(tt.patience).Hide(t.Context())
		server.Close()
		if _, isProblem := errors.AsType[*Problem](err); isProblem == tt.ok || requests.Load() != tt.requests {
			t.Errorf("%s with a patience of %v: %v after %d requests", tt.problem, tt.patience, err, requests.Load())
		}
	}
}

// TestClientWaitsForTheDaemon: a request for an attachment waits for a daemon that is about to listen, other requests do not.
func TestClientWaitsForTheDaemon(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "weft.sock")
	client := NewClient(socket).WithPatience(time.Hour)
	for name, request := range map[string]func() error{
		"hide":             func() error { _, err := client.Hide(t.Context()); return err },
		"without patience": func() error { _, err := NewClient(socket).Attach(t.Context(), AttachRequest{}); return err },
		"an absent daemon": func() error {
			_, err := client.WithPatience(10*time.Millisecond).Attach(t.Context(), AttachRequest{})
			return err
		},
	} {
		if err := request(); !errors.Is(err, ErrNoDaemon) {
			t.Errorf("%s: %v", name, err)
		}
	}
	done := make(chan error)
	go func() { _, err := client.Attach(t.Context(), AttachRequest{}); done <- err }()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNoContent)
	})}} //nolint:gosec // a test
	server.Start()
	defer server.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
