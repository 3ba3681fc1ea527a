package router

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"time"

	"weft/internal/peer"
	"weft/router/drop"
	"weft/router/wire"
)

// ErrNoAnswer is returned by RequestDialBack if the peer did not confirm that it has dialed back.
var ErrNoAnswer = errors.New("router: no answer to the dial-back request")

const (
	// dialBackPause is how long the engine waits for a dial-back before it asks the peer again, dialBackTries how often
	// it asks.
	dialBackPause = 700 * time.Millisecond
	dialBackTries = 3
	// maxDialBackRequests is how many requests of other nodes may wait for the dial-back goroutine. More are dropped.
	maxDialBackRequests = 8
)

// dialBackRequest is a peer's request, which arrived with a token.
type dialBackRequest struct {
	from  *peerView
	token uint64
}

// RequestDialBack asks a peer to send this node a datagram from a port that was never used before, and reports whether
// it arrived. If it did not, this node is behind a NAT or a firewall that only passes answers (as AutoNAT of libp2p
// tests).
//
// It waits for about two seconds at most. The errors are ErrNoAnswer, if the peer did not confirm that it has sent the
// datagram, those of SendControl, and that of ctx.
func (e *Engine) RequestDialBack(ctx context.Context, by peer.ID) (came bool, err error) {
	token := rand.Uint64()
	request := e.dialBacks.Add(token)
	defer e.dialBacks.Remove(token)
	message := binary.BigEndian.AppendUint64([]byte{controlDialBack}, token)
	for range dialBackTries {
		if err = e.SendControl(by, controlEngine, message); errors.Is(err, ErrNoPeer) {
			return false, err
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-request.Arrived:
			return true, nil
		case <-time.After(dialBackPause):
		}
	}
	select {
	case <-request.Confirmed:
		return false, nil
	default:
		return false, errors.Join(ErrNoAnswer, err)
	}
}

// queueDialBack passes a peer's request to the dial-back goroutine. Requests that come too soon after another are
// ignored.
func (e *Engine) queueDialBack(r dialBackRequest) drop.Reason {
	if e.events == nil || !r.from.Addr.IsValid() || !e.dialBacks.Allow(r.from.ID, e.now()) {
		return 0
	}
	select {
	case e.dialBackRequests <- r:
		return 0
	default:
		return drop.Busy
	}
}

// runDialBacks dials back for peers and confirms that to them, until ctx ends. It has a goroutine of its own, as
// opening a socket takes time.
func (e *Engine) runDialBacks(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case r := <-e.dialBackRequests:
			e.events.DialBack(r.from.Addr, wire.DialBack(r.token))
			message := binary.BigEndian.AppendUint64([]byte{controlDialedBack}, r.token)
			_ = e.sendControl(r.from.egress.Load(), wire.Control{Message: message})
		}
	}
}
