package mesh

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"weft/mesh/seal"
)

// ErrDuplicateKey is wrapped by Run's error when another live node has the same key and was started earlier.
var ErrDuplicateKey = errors.New("mesh: another node runs with this node's key")

// In gossip the node's own earlier address and a copy of its disk look the same. So a node that hears of its own ID at
// another address opens a stream there. Its handshake proves at both ends that the other one has the node's key, now. A
// recording proves nothing, and neither does a member (docs/adr/0003-duplicate-keys.md).
const (
	// contestPause is the shortest time between two streams that a node opens for that: gossip repeats itself.
	contestPause = 200 * time.Millisecond
	// contestDials is how many of them are open at once.
	contestDials = 4
)

// reportOwnKey implements admitter: it has the address dialed at which gossip has this node's own ID.
func (m *Mesh) reportOwnKey(at netip.AddrPort) {
	m.keyContested.Store(true)
	now, last := time.Now().UnixNano(), m.contested.Load()
	if now-last < int64(contestPause) || !m.contested.CompareAndSwap(last, now) {
		return
	}
	select {
	case m.contests <- at:
	default: // gossip repeats itself
	}
}

// settleContests dials the addresses at which gossip has this node's own ID until ctx ends.
func (m *Mesh) settleContests(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case at := <-m.contests:
			s, err := m.transport.openStream(at.String(), m.cfg.Identity.ID, streamTimeout)
			if err != nil {
				m.log.Debug("no other process with this node's key there", "addr", at, "err", err)
				continue
			}
			_ = s.Close() // this very process
		}
	}
}

// meetTwin returns an error when the remote end of a stream has proven that it is another process with this node's key.
// The one that was started later ends its Run.
func (m *Mesh) meetTwin(r seal.Remote) error {
	if r.Public != m.cfg.Identity.Public || r.Instance == m.instance {
		return nil
	}
	err := fmt.Errorf("%w: %s at %s, since %s", ErrDuplicateKey,
		m.cfg.Identity.ID, r.Addr.Addr(), r.Started.UTC().Format(time.RFC3339))
	if r.Started.Before(m.started) || r.Started.Equal(m.started) && r.Instance < m.instance {
		m.fail(err)
	} else {
		m.log.Warn("another node was started later with this node's key, and has to stop", "addr", r.Addr)
	}
	return err
}
