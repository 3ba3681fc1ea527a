// Package netspace runs functions in a network namespace.
package netspace

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/vishvananda/netns"
)

// Do calls f on a thread in the network namespace ns; processes that f starts are in it, too. The namespace of all other threads stays as
// it is.
func Do(ns netns.NsHandle, f func() error) error {
	runtime.LockOSThread()
	here, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("netspace: this network namespace: %w", err)
	}
	defer here.Close()
	if here.Equal(ns) {
		defer runtime.UnlockOSThread()
		return f()
	}
	if err := netns.Set(ns); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("netspace: another network namespace: %w", err)
	}
	err = f()
	if back := netns.Set(here); back != nil {
		return errors.Join(err, back) // the thread stays locked, so that it ends with the goroutine
	}
	runtime.UnlockOSThread()
	return err
}
