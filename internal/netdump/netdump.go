// Package netdump repeats dumps of netlink that the kernel reports as interrupted.
//
// The kernel returns long lists (links, addresses, routes) in parts. If the list changes between two parts, entries may be
// missing or appear twice, and the kernel marks the dump as interrupted (NLM_F_DUMP_INTR, netlink(7)). Such a list must not be
// used: what it lacks may exist.
package netdump

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
)

// attempts bounds the repetitions. With a thousand changes per second and a list of 250 addresses, half of the dumps are
// interrupted.
const attempts = 100

// ErrInterrupted means that the kernel's list changed during each of the attempts.
var ErrInterrupted = errors.New("the list changed while it was read, in each of many attempts")

// Repeat calls list until its dump is not interrupted, and returns its result. It returns other errors at once. Its error wraps
// ErrInterrupted if the bound is reached; then the result is the zero value.
func Repeat[T any](list func() (T, error)) (T, error) {
	for range attempts {
		got, err := list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return got, err
		}
	}
	var none T
	return none, fmt.Errorf("netlink: %w", ErrInterrupted)
}
