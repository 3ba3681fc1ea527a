package ipam

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"weft/internal/peer"
)

// TestAwaitedOwner: an operation that needs the addresses of a node which may be reachable within seconds waits for it, and fails with the
// error that it would have had at once where the node stays away.
func TestAwaitedOwner(t *testing.T) {
	for name, test := range map[string]struct {
		operation func(*Allocator, int) error
		failure   error
	}{
		"a claim": {func(a *Allocator, n int) error {
			_, err := a.Claim(context.Background(), "claimed", netip.AddrFrom4([4]byte{10, 32, 0, byte(100 + n)}))
			return err
		}, ErrUnreachable},
		"an allocation": {func(a *Allocator, n int) error {
			_, err := a.Allocate(context.Background(), "allocated", netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 32, 0, byte(100 + 2*n)}), 31))
			return err
		}, ErrExhausted},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 2, func(t *testing.T, b *bus) {
				b.startAll("10.32.0.0/24")
				b.eventually("ready", b.allReady)
				owner, other := b.nodes[0], b.nodes[1]
				for n := range 2 { // the owner has all of them
					for last := 100 + 2*n; last < 102+2*n; last++ {
						holder := netip.AddrFrom4([4]byte{10, 32, 0, byte(last)})
						if _, err := owner.alloc.Claim(context.Background(), "x", holder); err != nil {
							t.Fatal(err)
						}
						if err := owner.alloc.Release("x", holder); err != nil {
							t.Fatal(err)
						}
					}
				}
				b.eventually("informed", b.allInformed)
				b.isolate(owner)
				if err := test.operation(other.alloc, 0); !errors.Is(err, test.failure) {
					t.Errorf("without the owner: %v", err)
				}
				b.mu.Lock()
				b.awaited = map[peer.ID]bool{owner.id: true}
				b.mu.Unlock()
				begun := time.Now()
				if err := test.operation(other.alloc, 0); !errors.Is(err, test.failure) || time.Since(begun) < membershipPatience {
					t.Errorf("an owner that stays away, after %v: %v", time.Since(begun), err)
				}
				time.AfterFunc(3*time.Second, func() { b.isolate() })
				if err := test.operation(other.alloc, 1); err != nil {
					t.Errorf("an owner that comes back: %v", err)
				}
			})
		})
	}
}
