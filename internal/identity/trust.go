package identity

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"net/netip"
	"sync"
	"time"

	"weft/internal/peer"
)

// Trust are the CAs that a node trusts, each with its latest list of revoked nodes. A Trust is never changed, so it may be shared
// between goroutines.
type Trust struct {
	cas      []CAKey
	lists    map[CAKey]Revocations // signed by the CA; none: the CA has revoked no node
	verified *verified             // by these CAs; nil: nothing is remembered
}

// NewTrust returns a Trust in the given CAs, without lists.
func NewTrust(cas []CAKey) Trust { return Trust{cas: cas, verified: &verified{}} }

// CAs returns the CAs, the preferred one first. The slice must not be changed.
func (t Trust) CAs() []CAKey { return t.cas }

// List returns the list of a CA; the zero Revocations if there is none.
func (t Trust) List(ca CAKey) Revocations { return t.lists[ca] }

// WithCAs returns a Trust in other CAs, with the lists that t has of them.
func (t Trust) WithCAs(cas []CAKey) Trust {
	next := Trust{cas: cas, lists: map[CAKey]Revocations{}, verified: &verified{}}
	for _, ca := range cas {
		if list := t.lists[ca]; !list.IsZero() {
			next.lists[ca] = list
		}
	}
	return next
}

// Adopt returns t with a list, if it is newer than the one that t has of the same CA; otherwise t and false. The error is about a
// list that none of the CAs has signed.
func (t Trust) Adopt(list Revocations) (next Trust, adopted bool, err error) {
	for _, ca := range t.cas {
		if !list.SignedBy(ca) {
			continue
		}
		if !list.Newer(t.lists[ca]) {
			return t, false, nil
		}
		next = Trust{cas: t.cas, lists: maps.Clone(t.lists), verified: t.verified}
		if next.lists == nil {
			next.lists = map[CAKey]Revocations{}
		}
		next.lists[ca] = list
		return next, true, nil
	}
	return t, false, fmt.Errorf("%w: a list of revoked nodes that no CA of this node has signed", ErrMalformed)
}

// Revoked returns when a CA has revoked a node, and whether one has. A node that one CA has revoked is not admitted by a
// certificate of another.
func (t Trust) Revoked(id peer.ID) (at time.Time, revoked bool) {
	for _, list := range t.lists {
		if at, revoked = list.Has(id); revoked {
			return at, true
		}
	}
	return time.Time{}, false
}

// Holder is a node that shows a certificate.
type Holder struct {
	Public [peer.KeySize]byte
	// Name and Addr are checked where they are known: Named is true, and Addr is valid.
	Name  string
	Named bool
	Addr  netip.Addr // underlay address that the node publishes
}

// Check returns the certificate in its wire form, if it admits its holder at now.
func (t Trust) Check(encoded []byte, h Holder, now time.Time) (Certificate, *Error) {
	if at, revoked := t.Revoked(peer.FromPublicKey(h.Public)); revoked {
		return Certificate{}, refuse(Revoked, "since %s", rfc3339(at))
	}
	if len(encoded) == 0 {
		return Certificate{}, &Error{Refusal: NoCertificate}
	}
	c, err := ParseCertificate(encoded)
	if err != nil {
		return Certificate{}, refuse(Unreadable, "%v", err)
	}
	if err := t.CheckParsed(c, h, now); err != nil {
		return Certificate{}, err
	}
	return c, nil
}

// CheckParsed is Check without a look at the lists of revoked nodes.
func (t Trust) CheckParsed(c Certificate, h Holder, now time.Time) *Error {
	if !t.signed(c, h.Public) {
		return &Error{Refusal: OtherCA}
	}
	switch {
	case now.Before(c.NotBefore.Add(-Skew)):
		return refuse(NotYetValid, "valid from %s, the clock of this node is %s", rfc3339(c.NotBefore), rfc3339(now))
	case !now.Before(c.NotAfter):
		return refuse(Expired, "since %s", rfc3339(c.NotAfter))
	case h.Named && c.Name != "" && c.Name != h.Name:
		return refuse(OtherName, "its name is %q, that in the certificate %q", h.Name, c.Name)
	case h.Addr.IsValid() && !c.Allows(h.Addr):
		return refuse(OtherAddress, "it is at %s, the certificate allows %v", h.Addr, c.Addresses)
	}
	return nil
}

// signed reports whether a CA has signed the certificate for a key.
func (t Trust) signed(c Certificate, public [peer.KeySize]byte) bool {
	message := c.signed(public)
	sum := sha256.Sum256(append(message[:len(message):len(message)], c.signature[:]...))
	if t.verified.has(sum) {
		return true
	}
	for _, ca := range t.cas {
		if ca.verify(certificateContext, message, c.signature[:]) {
			t.verified.add(sum)
			return true
		}
	}
	return false
}

// maxVerified bounds the good signatures that are remembered.
const maxVerified = 16384

// verified remembers good signatures, by a hash of what they cover and of themselves: gossip repeats the certificates of all members
// many times a second. The nil verified remembers nothing.
type verified struct {
	mu   sync.Mutex
	sums map[[sha256.Size]byte]struct{} // guarded by mu
}

func (v *verified) has(sum [sha256.Size]byte) bool {
	if v == nil {
		return false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	_, known := v.sums[sum]
	return known
}

func (v *verified) add(sum [sha256.Size]byte) {
	if v == nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.sums == nil || len(v.sums) >= maxVerified {
		v.sums = make(map[[sha256.Size]byte]struct{})
	}
	v.sums[sum] = struct{}{}
}
