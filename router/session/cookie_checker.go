package session

import (
	"fmt"
	"io"
	"net/netip"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"weft/router/wire"
)

// cookieAge is how long a node makes cookies with one key, and how long the receiver of a cookie uses it. A cookie is
// accepted for as long again after its key was replaced.
const cookieAge = 2 * time.Minute

// cookieChecker makes cookies and checks them. It does not remember their receivers: a cookie is a MAC of the address
// that it was sent to, with a key that changes.
// See docs/adr/0013-late-initiations.md.
type cookieChecker struct {
	rand        io.Reader
	since       time.Time // of key; zero before the first one
	key, oldKey [KeyLen]byte
}

// rotate replaces the key at now if it is older than cookieAge.
func (c *cookieChecker) rotate(now time.Time) error {
	if age := now.Sub(c.since); !c.since.IsZero() && age >= 0 && age < cookieAge {
		return nil
	}
	c.oldKey = c.key
	if !recent(c.since, 2*cookieAge, now) { // cookies of the old key are too old
		if _, err := io.ReadFull(c.rand, c.oldKey[:]); err != nil {
			return fmt.Errorf("session: random numbers: %w", err)
		}
	}
	if _, err := io.ReadFull(c.rand, c.key[:]); err != nil {
		return fmt.Errorf("session: random numbers: %w", err)
	}
	c.since = now
	return nil
}

func cookieFor(key [KeyLen]byte, addr netip.AddrPort) [wire.MACLen]byte {
	text, _ := addr.MarshalBinary() // never fails
	return mac(key, text)
}

// valid reports whether the second MAC of an initiation from addr was made with a cookie that was sent to addr.
func (c *cookieChecker) valid(addr netip.AddrPort, datagram []byte) bool {
	if c.since.IsZero() {
		return false // no cookie was ever sent
	}
	covered, second := datagram[:len(datagram)-wire.MACLen], datagram[len(datagram)-wire.MACLen:]
	return equalMAC(secondMAC(cookieFor(c.key, addr), covered), second) || equalMAC(secondMAC(cookieFor(c.oldKey, addr), covered), second)
}

// secondMAC returns the MAC with a cookie over an initiation without that MAC.
func secondMAC(cookie [wire.MACLen]byte, covered []byte) [wire.MACLen]byte {
	var key [KeyLen]byte
	copy(key[:], cookie[:])
	return mac(key, covered)
}

// reply returns the cookie reply to the initiation m from addr. Only the sender of m can open it, as it knows key.
func (c *cookieChecker) reply(key [KeyLen]byte, addr netip.AddrPort, m wire.Initiation) ([]byte, error) {
	aead, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		return nil, fmt.Errorf("session: %w", err)
	}
	nonce := make([]byte, wire.CookieNonceLen)
	if _, err := io.ReadFull(c.rand, nonce); err != nil {
		return nil, fmt.Errorf("session: random numbers: %w", err)
	}
	cookie := cookieFor(c.key, addr)
	sealed := aead.Seal(nil, nonce, cookie[:], m.First)
	return wire.Cookie{Receiver: m.Sender, Nonce: nonce, Sealed: sealed}.Append(nil), nil
}

// openCookie returns the cookie in m, the reply to an initiation with the given first MAC.
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
