package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"weft/internal/peer"
	"weft/ipam/ring"
)

// Errors that callers branch on.
var (
	// ErrExhausted is wrapped when no node has an address left where one was asked for.
	ErrExhausted = errors.New("ipam: no address left")
	// ErrLeased is wrapped by Claim when somebody else holds the address.
	ErrLeased = errors.New("ipam: address in use")
	// ErrUnreachable is wrapped by Claim when the address belongs to a node that does not answer.
	ErrUnreachable = errors.New("ipam: owner unreachable")
	// ErrUnknownOwner is wrapped by Release when the owner does not hold what is to be released.
	ErrUnknownOwner = errors.New("ipam: unknown owner")
	// ErrOutside is wrapped when what is asked for is not within the ranges, or never given out.
	ErrOutside = errors.New("ipam: outside of the ranges")
	// ErrLeft is wrapped by everything that needs space after Leave.
	ErrLeft = errors.New("ipam: this node has left")
	// ErrNoHeir is wrapped by Leave when there are other nodes and none can be reached.
	ErrNoHeir = errors.New("ipam: nobody to give the addresses to")
)

// exhausted says that in is full: how many addresses are leased, and who was not there to be asked.
func (a *Allocator) exhausted(p *pool, in netip.Prefix, span ring.Span, s *search) error {
	leased := span.Len()
	var gone, silent []string
	for _, total := range p.ring.TotalsWithin(span) {
		switch {
		case total.Owner == a.cfg.Self:
		case !a.cfg.Reachable(total.Owner):
			gone = append(gone, a.name(total.Owner))
			leased -= min(total.Free, leased)
		case s.tried[total.Owner] == unanswered:
			silent = append(silent, a.name(total.Owner))
			leased -= min(total.Free, leased)
		}
	}
	text := fmt.Sprintf("%s is full: %d of %d addresses leased", in, leased, span.Len())
	if len(gone) > 0 {
		text += fmt.Sprintf("; %s unreachable (%s): bring them back or `weft reclaim` them", count(len(gone), "owner"), list(gone))
	}
	if len(silent) > 0 {
		text += fmt.Sprintf("; %s gave no answer (%s): try again", count(len(silent), "owner"), list(silent))
	}
	return fmt.Errorf("%w: %s", ErrExhausted, text)
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// list names the first few of names.
func list(names []string) string {
	const most = 8
	slices.Sort(names)
	if n := len(names); n > most {
		names = append(names[:most:most], fmt.Sprintf("and %d more", n-most))
	}
	return strings.Join(names, ", ")
}

// unreachable says that addr cannot be had as its owner is not there.
func (a *Allocator) unreachable(addr netip.Addr, owner peer.ID) error {
	return fmt.Errorf("%w: %s belongs to node %s: bring it back or `weft reclaim` it", ErrUnreachable, addr, a.name(owner))
}
