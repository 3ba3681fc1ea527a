package wireguard

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// answerWithin is how long the WireGuard of a device may take to answer. That of a program may hang, and wgctrl waits without end.
const answerWithin = 2 * time.Second

// errHangs means that WireGuard does not answer.
var errHangs = errors.New("WireGuard does not answer")

// timed is a client of WireGuard that returns in time. While one has not ended, further ones fail at once.
type timed struct {
	client *wgctrl.Client
	hangs  atomic.Int32 // calls that have not ended
}

// newTimed returns a client in the network namespace of the calling thread.
func newTimed() (*timed, error) {
	client, err := wgctrl.New()
	if err != nil {
		return nil, fmt.Errorf("wireguard: %w", err)
	}
	return &timed{client: client}, nil
}

// Device returns the configuration of a device.
func (t *timed) Device(name string) (*wgtypes.Device, error) {
	var found *wgtypes.Device // not read after a timeout
	if err := t.call(func() (err error) {
		found, err = t.client.Device(name)
		return err
	}); err != nil {
		return nil, err
	}
	return found, nil
}

// ConfigureDevice changes the configuration of a device.
func (t *timed) ConfigureDevice(name string, c wgtypes.Config) error {
	return t.call(func() error { return t.client.ConfigureDevice(name, c) })
}

// Close ends the client. A call that hangs goes on.
func (t *timed) Close() error { return t.client.Close() }

// call calls f and waits until it ends, but not for long.
func (t *timed) call(f func() error) error {
	if t.hangs.Load() > 0 {
		return errHangs
	}
	t.hangs.Add(1)
	ended := make(chan error, 1)
	go func() {
		err := f()
		t.hangs.Add(-1)
		ended <- err
	}()
	timeout := time.NewTimer(answerWithin)
	defer timeout.Stop()
	select {
	case err := <-ended:
		return err
	case <-timeout.C:
		return fmt.Errorf("%w within %s", errHangs, answerWithin)
	}
}
