package session

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"weft/router/wire"
)

// Bounds of what messages may cost. A handshake is five multiplications on Curve25519, a quarter of a millisecond.
const (
	// freeRate and freeBurst are how many a second, and at once, are answered without a cookie.
	freeRate, freeBurst = 100, 200
	// addressRate and addressBurst are the same for those with a cookie, from one address.
	addressRate, addressBurst = 20, 20
	// cookieRate and cookieBurst are how many cookies are given.
	cookieRate, cookieBurst = 2000, 500
	// unknownRate and unknownBurst are how many times a peer's word is listened to that it does not know a session.
	unknownRate, unknownBurst = 100, 100
	// strayRate and strayBurst are how many senders are told so.
	strayRate, strayBurst = 1000, 200
)

// gate keeps strangers from costing anything: it lets in a bounded number of initiations, of those who have shown that
// they are where they say they are once there are too many. Its memory is constant.
type gate struct {
	baker   baker
	free    bucket
	cookies bucket
	unknown bucket
	strays  bucket
	// addresses are buckets by a hash of the address: those who collide share one.
	addresses [256]bucket
}

func newGate(random io.Reader) gate {
	g := gate{
		baker: baker{rand: random},
		free:  newBucket(freeRate, freeBurst), cookies: newBucket(cookieRate, cookieBurst), unknown: newBucket(unknownRate, unknownBurst),
		strays: newBucket(strayRate, strayBurst),
	}
	for i := range g.addresses {
		g.addresses[i] = newBucket(addressRate, addressBurst)
	}
	return g
}

// admit reports whether the initiation m may cost a handshake, and whether its sender has shown that it receives what
// is sent to from. Where there are too many, it is given a cookie.
func (g *gate) admit(n *Node, own *ownSecret, m wire.Initiation, b []byte, from netip.AddrPort, now time.Time) (proven bool, err error) {
	if err := g.baker.turn(now); err != nil {
		return false, err
	}
	if g.baker.knows(from, b) {
		if !g.addresses[g.hash(from.Addr())].take(now) {
			return true, ErrBusy
		}
		return true, nil
	}
	if g.free.take(now) {
		return false, nil
	}
	return false, errors.Join(ErrBusy, g.giveCookie(n, own, m, from, now))
}

func (g *gate) giveCookie(n *Node, own *ownSecret, m wire.Initiation, from netip.AddrPort, now time.Time) error {
	if !g.cookies.take(now) {
		return nil
	}
	datagram, err := g.baker.bake(own.cookie, from, m)
	if err != nil {
		return fmt.Errorf("session: cookie: %w", err)
	}
	n.send(from, datagram)
	return nil
}

func (g *gate) hash(addr netip.Addr) int {
	text := addr.As16()
	sum := mac(g.baker.now, text[:])
	return int(sum[0])
}
