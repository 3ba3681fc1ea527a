package session

import (
	"fmt"
	"io"
	"net/netip"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"weft/router/wire"
)

// cookieAge is how long a node's cookie secret is its newest one, and how long those who have got a cookie use it. It is
// taken for as long again.
const cookieAge = 2 * time.Minute

// baker makes cookies and knows them again, without memory of whom it gave one: a cookie is a MAC of the address it was
// sent to, by a secret that changes.
type baker struct {
	rand        io.Reader
	since       time.Time // of now; zero for never
	now, before [KeyLen]byte
}

// turn changes the secret if it is time.
func (b *baker) turn(now time.Time) error {
	if age := now.Sub(b.since); !b.since.IsZero() && age >= 0 && age < cookieAge {
		return nil
	}
	b.before = b.now
	if !recent(b.since, 2*cookieAge, now) { // what was made with it is too old
		if _, err := io.ReadFull(b.rand, b.before[:]); err != nil {
			return fmt.Errorf("session: random numbers: %w", err)
		}
	}
	if _, err := io.ReadFull(b.rand, b.now[:]); err != nil {
		return fmt.Errorf("session: random numbers: %w", err)
	}
	b.since = now
	return nil
}

func cookieFor(secret [KeyLen]byte, addr netip.AddrPort) [wire.MACLen]byte {
	text, _ := addr.MarshalBinary() // never fails
	return mac(secret, text)
}

// knows reports whether the second MAC of an initiation from addr is by a cookie that was sent there.
func (b *baker) knows(addr netip.AddrPort, datagram []byte) bool {
	if b.since.IsZero() {
		return false // none was ever given
	}
	covered, given := datagram[:len(datagram)-wire.MACLen], datagram[len(datagram)-wire.MACLen:]
	return equalMAC(secondMAC(cookieFor(b.now, addr), covered), given) || equalMAC(secondMAC(cookieFor(b.before, addr), covered), given)
}

// secondMAC returns the MAC by a cookie over an initiation without it.
func secondMAC(cookie [wire.MACLen]byte, covered []byte) [wire.MACLen]byte {
	var key [KeyLen]byte
	copy(key[:], cookie[:])
	return mac(key, covered)
}

// bake returns the answer to the initiation m from addr: a cookie that only who has sent m can open, as he knows key.
func (b *baker) bake(key [KeyLen]byte, addr netip.AddrPort, m wire.Initiation) ([]byte, error) {
	aead, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		return nil, fmt.Errorf("session: %w", err)
	}
	nonce := make([]byte, wire.CookieNonceLen)
	if _, err := io.ReadFull(b.rand, nonce); err != nil {
		return nil, fmt.Errorf("session: random numbers: %w", err)
	}
	cookie := cookieFor(b.now, addr)
	sealed := aead.Seal(nil, nonce, cookie[:], m.First)
	return wire.Cookie{Receiver: m.Sender, Nonce: nonce, Sealed: sealed}.Append(nil), nil
}

// openCookie returns the cookie in m, the answer to an initiation with the given first MAC.
func openCookie(key [KeyLen]byte, m wire.Cookie, first []byte) (cookie [wire.MACLen]byte, err error) {
	aead, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		return cookie, fmt.Errorf("session: %w", err)
	}
	if _, err := aead.Open(cookie[:0], m.Nonce, m.Sealed, first); err != nil {
		return cookie, ErrForged
	}
	return cookie, nil
}
