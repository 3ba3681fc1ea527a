package apiserver

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
	"syscall"
	"time"

	"weft/internal/api"
	"weft/internal/hint"
	"weft/internal/unixsocket"
)

// Bounds of what a client of the socket may send, and of how long the server finishes requests when it stops.
const (
	maxRequest   = 1 << 20 // bytes
	drainTimeout = 2 * time.Second
)

// ListenSocket binds the API's unix socket with mode 0600, in place of one that a crash has left. Errors are *hint.Error.
func ListenSocket(path string) (net.Listener, error) {
	const flag = "--socket"
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, hint.Refuse(flag, "Name a path in a directory that can be created.", "%w", err)
	}
	l, err := unixsocket.Listen(context.Background(), path)
	if err != nil {
		if errno, ok := errors.AsType[syscall.Errno](err); ok {
			err = errno // the wrapping repeats the path
		}
		return nil, hint.Refuse(flag, "Name a path where a socket can be created.", "%w", err)
	}
	return l, nil
}

// serve answers requests on l until ctx ends, then lets those in progress finish for a moment. A connection ends
// if its request does not arrive or its answer is not read within timeout, unless its handler extends that; 0: no limit.
func serve(ctx context.Context, l net.Listener, h http.Handler, timeout time.Duration) error {
	s := &http.Server{
		Handler: h, ReadHeaderTimeout: httpHeaderTimeout, ReadTimeout: timeout, WriteTimeout: timeout, IdleTimeout: httpIdleTimeout,
		MaxHeaderBytes: maxHTTPHeader,
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
		return fmt.Errorf("apiserver: serving %s: %w", l.Addr(), err)
	}
	return <-stopped
}

// none is a request or an answer without a body.
type none = struct{}

// handle makes a handler of a function from a request document to an answer. In is decoded from the body unless it is none; an
// answer of none has no body.
func handle[In, Out any](log *slog.Logger, f func(r *http.Request, in In) (Out, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var in In
		if _, empty := any(in).(none); !empty {
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
		if _, empty := any(out).(none); empty {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		writeJSON(log, w, "application/json", http.StatusOK, out)
	}
}

// show makes a handler of a function that returns a document.
func show[Out any](log *slog.Logger, f func() Out) http.HandlerFunc {
	return handle(log, func(*http.Request, none) (Out, error) { return f(), nil })
}

// do makes a handler of a function that has no answer.
func do[In any](log *slog.Logger, f func(r *http.Request, in In) error) http.HandlerFunc {
	return handle(log, func(r *http.Request, in In) (none, error) { return none{}, f(r, in) })
}

func decode(w http.ResponseWriter, r *http.Request, in any) error {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest))
	err := d.Decode(in)
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return hint.New(hint.Invalid, "", "the request is larger than %d bytes", maxRequest)
	}
	if err != nil {
		return hint.New(hint.Invalid, "", "the request is not JSON of the expected form: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return hint.New(hint.Invalid, "", "the request has data after its JSON")
	}
	return nil
}

// statusOf maps kinds of errors to HTTP.
var statusOf = map[hint.Kind]int{
	hint.Invalid:   http.StatusBadRequest,
	hint.Refused:   http.StatusConflict,
	hint.NotFound:  http.StatusNotFound,
	hint.Exhausted: http.StatusInsufficientStorage,
	hint.Timeout:   http.StatusGatewayTimeout,
	hint.Starting:  http.StatusServiceUnavailable,
	hint.Internal:  http.StatusInternalServerError,
}

// problemOf returns an error as the problem document that the client gets.
func problemOf(err error) api.Problem {
	p := api.Problem{Kind: hint.Internal, Detail: hint.Plain(err.Error())}
	if e, ok := errors.AsType[*hint.Error](err); ok {
		p.Kind, p.Hint = e.Kind, e.Hint
	}
	if advice, ok := hint.Disk(err); ok { // whatever the request was
		p.Kind, p.Hint = hint.Internal, advice
	}
	if p.Kind == hint.Usage { // of a configuration that was read again
		p.Kind = hint.Refused
	}
	p.Status = statusOf[p.Kind]
	return p
}

func writeProblem(log *slog.Logger, w http.ResponseWriter, err error) {
	p := problemOf(err)
	writeJSON(log, w, "application/problem+json", p.Status, p)
}

func writeJSON(log *slog.Logger, w http.ResponseWriter, contentType string, status int, doc any) {
	text, err := json.Marshal(doc)
	if err != nil {
		log.Error("cannot encode an answer", "err", err)
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	if _, err := w.Write(append(text, '\n')); err != nil {
		log.Debug("cannot send an answer", "err", err)
	}
}
