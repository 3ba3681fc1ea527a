package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"weft/internal/api"
)

// Bounds of what a client of the socket may send and how long the server goes on with requests when it stops.
const (
	maxRequest   = 1 << 20
	drainTimeout = 2 * time.Second
)

// listenSocket binds the API's unix socket with mode 0600, in place of one that a crash left behind.
func listenSocket(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, refuse("--socket", "Name a path in a folder that can be made.", "%w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, refuse("--socket", "Remove what is there, or name another path.", "%w", err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, refuse("--socket", "Name a path where a socket can be made.", "%w", rootCause(err))
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(refuse("--socket", "Name a path where modes can be set.", "%w", err), l.Close())
	}
	return l, nil
}

// serve answers requests on l until ctx ends, then lets those under way finish for a moment. A request that has not come, or an answer that was not
// taken, within patience ends its connection, unless its handler says otherwise; 0 is without end.
func serve(ctx context.Context, l net.Listener, h http.Handler, patience time.Duration) error {
	s := &http.Server{
		Handler: h, ReadHeaderTimeout: httpHeaderIn, ReadTimeout: patience, WriteTimeout: patience, IdleTimeout: httpIdle, MaxHeaderBytes: httpHeaders,
	}
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
		defer cancel()
		err := s.Shutdown(drain)
		if errors.Is(err, context.DeadlineExceeded) {
			err = s.Close()
		}
		stopped <- err
	}()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("daemon: serving %s: %w", l.Addr(), err)
	}
	return <-stopped
}

// handle turns a function from a request document to an answer into a handler. In is read from the body unless it is
// struct{}; an answer of struct{} has no body.
func handle[In, Out any](log *slog.Logger, f func(r *http.Request, in In) (Out, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var in In
		if _, none := any(in).(struct{}); !none {
			if err := decode(w, r, &in); err != nil {
				writeProblem(log, w, err)
				return
			}
		}
		out, err := f(r, in)
		if err != nil {
			writeProblem(log, w, err)
			return
		}
		if _, none := any(out).(struct{}); none {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		writeJSON(log, w, "application/json", http.StatusOK, out)
	}
}

func decode(w http.ResponseWriter, r *http.Request, in any) error {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest))
	if err := d.Decode(in); err != nil {
		return problem(api.KindInvalid, "", "the request is no JSON of the expected form: %v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return problem(api.KindInvalid, "", "the request has something behind its JSON")
	}
	return nil
}

// problem returns an error that the client sees with the given kind and hint.
func problem(kind api.Kind, hint, format string, args ...any) *api.Problem {
	return &api.Problem{Kind: kind, Detail: fmt.Sprintf(format, args...), Hint: hint}
}

// statusOf maps kinds of problem to HTTP.
var statusOf = map[api.Kind]int{
	api.KindInvalid:   http.StatusBadRequest,
	api.KindRefused:   http.StatusConflict,
	api.KindNotFound:  http.StatusNotFound,
	api.KindExhausted: http.StatusInsufficientStorage,
	api.KindTimeout:   http.StatusGatewayTimeout,
	api.KindStarting:  http.StatusServiceUnavailable,
	api.KindInternal:  http.StatusInternalServerError,
}

func writeProblem(log *slog.Logger, w http.ResponseWriter, err error) {
	p, ok := errors.AsType[*api.Problem](err)
	if !ok {
		p = problem(api.KindInternal, "", "%v", err)
	}
	answer := *p
	answer.Status = statusOf[p.Kind]
	writeJSON(log, w, "application/problem+json", answer.Status, answer)
}

func writeJSON(log *slog.Logger, w http.ResponseWriter, contentType string, status int, doc any) {
	text, err := json.Marshal(doc)
	if err != nil {
		log.Error("encoding an answer", "err", err)
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	if _, err := w.Write(append(text, '\n')); err != nil {
		log.Debug("writing an answer", "err", err)
	}
}
