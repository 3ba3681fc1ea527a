package docker

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"syscall"
	"time"

	"weft/internal/api"
)

// daemonPause is the time between two attempts while the daemon is away.
const daemonPause = 100 * time.Millisecond

// patient is a daemon that may be away for a moment, as during an upgrade: each request is repeated until it answers, or patience has
// ended. All requests of the plugin can be repeated.
type patient struct {
	daemon   Daemon
	patience time.Duration
}

// repeat calls f until the daemon answers. It returns the last error of f.
func (p patient) repeat(ctx context.Context, f func() error) error {
	deadline := time.Now().Add(p.patience)
	for {
		err := f()
		if !isAway(err) || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(daemonPause):
		}
	}
}

// isAway reports whether an error is that the daemon does not run, or has ended before it answered.
func isAway(err error) bool {
	for _, away := range []error{api.ErrNoDaemon, io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, away) {
			return true
		}
	}
	return false
}

// repeated is repeat for a request with an answer.
func repeated[T any](ctx context.Context, p patient, f func() (T, error)) (answer T, err error) {
	err = p.repeat(ctx, func() (err error) {
		answer, err = f()
		return err
	})
	return answer, err
}

// Status implements Daemon.
func (p patient) Status(ctx context.Context) (api.Status, error) {
	return repeated(ctx, p, func() (api.Status, error) { return p.daemon.Status(ctx) })
}

// Leases implements Daemon.
func (p patient) Leases(ctx context.Context, owner string) ([]api.Lease, error) {
	return repeated(ctx, p, func() ([]api.Lease, error) { return p.daemon.Leases(ctx, owner) })
}

// Allocate implements Daemon.
func (p patient) Allocate(ctx context.Context, r api.AddressRequest) ([]api.Lease, error) {
	return repeated(ctx, p, func() ([]api.Lease, error) { return p.daemon.Allocate(ctx, r) })
}

// Release implements Daemon.
func (p patient) Release(ctx context.Context, owner, ip string) error {
	return p.repeat(ctx, func() error { return p.daemon.Release(ctx, owner, ip) })
}

// Expose implements Daemon.
func (p patient) Expose(ctx context.Context, r api.ExposeRequest) ([]api.Exposed, error) {
	return repeated(ctx, p, func() ([]api.Exposed, error) { return p.daemon.Expose(ctx, r) })
}

// Guard implements Daemon.
func (p patient) Guard(ctx context.Context, r api.GuardRequest) error {
	return p.repeat(ctx, func() error { return p.daemon.Guard(ctx, r) })
}

// Unguard implements Daemon.
func (p patient) Unguard(ctx context.Context, owner string) error {
	return p.repeat(ctx, func() error { return p.daemon.Unguard(ctx, owner) })
}

// Names implements Daemon.
func (p patient) Names(ctx context.Context, name string, ip netip.Addr) ([]api.Name, error) {
	return repeated(ctx, p, func() ([]api.Name, error) { return p.daemon.Names(ctx, name, ip) })
}

// AddName implements Daemon.
func (p patient) AddName(ctx context.Context, r api.NameRequest) error {
	return p.repeat(ctx, func() error { return p.daemon.AddName(ctx, r) })
}

// RemoveName implements Daemon.
func (p patient) RemoveName(ctx context.Context, r api.NameRequest) error {
	return p.repeat(ctx, func() error { return p.daemon.RemoveName(ctx, r) })
}
