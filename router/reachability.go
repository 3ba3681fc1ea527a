package router

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"weft/internal/peer"
	"weft/router/wire"
)

// ErrNoAnswer is returned by RequestDialBack if the peer did not confirm that it has dialed back.
var ErrNoAnswer = errors.New("router: no answer to the dial-back request")

const (
	// dialBackPause is how long the engine waits for a dial-back before it asks the peer again, dialBackTries how often
	// it asks.
	dialBackPause = 700 * time.Millisecond
	dialBackTries = 3
	// dialBackInterval is the shortest time between two dial-backs for other nodes.
	dialBackInterval = 50 * time.Millisecond
	// maxDialBackRequests is how many requests of other nodes may wait for the dial-back goroutine. More are dropped.
	maxDialBackRequests = 8
)

// dialBacks are the dial-backs that this node has asked for, and when it last did one itself.
// See docs/adr/0017-dial-out-nodes.md.
type dialBacks struct {
	mu   sync.Mutex
	open map[uint64]*pendingDialBack // guarded by mu: by token
	last time.Time                   // guarded by mu
}

// pendingDialBack has the functions to call when the datagram arrives, and when the peer confirms that it was sent.
type pendingDialBack struct{ arrived, confirmed func() }

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
	arrived, confirmed := make(chan struct{}), make(chan struct{})
	e.dialBacks.add(token, &pendingDialBack{
		arrived: sync.OnceFunc(func() { close(arrived) }), confirmed: sync.OnceFunc(func() { close(confirmed) }),
	})
	defer e.dialBacks.remove(token)
	message := binary.BigEndian.AppendUint64([]byte{controlDialBack}, token)
	for range dialBackTries {
		if err = e.SendControl(by, controlEngine, message); errors.Is(err, ErrNoPeer) {
			return false, err
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-arrived:
			return true, nil
		case <-time.After(dialBackPause):
		}
	}
	select {
	case <-confirmed:
		return false, nil
	default:
		return false, errors.Join(ErrNoAnswer, err)
	}
}

// queueDialBack passes a peer's request to the dial-back goroutine. Requests that come too soon after another are
// ignored.
func (e *Engine) queueDialBack(r dialBackRequest) Drop {
	if e.events == nil || !e.dialBacks.allow(e.now()) {
		return 0
	}
	select {
	case e.dialBackRequests <- r:
		return 0
	default:
		return DropBusy
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

func (d *dialBacks) add(token uint64, p *pendingDialBack) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open == nil {
		d.open = map[uint64]*pendingDialBack{}
	}
	d.open[token] = p
}

func (d *dialBacks) remove(token uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.open, token)
}

// handleArrival notes that a dial-back with a token has arrived.
func (d *dialBacks) handleArrival(token uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p := d.open[token]; p != nil {
		p.arrived()
	}
}

// handleConfirmation notes that the peer says that it has dialed back.
func (d *dialBacks) handleConfirmation(token uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p := d.open[token]; p != nil {
		p.confirmed()
	}
}

// allow reports whether this node may dial back for a peer at now, and if so counts it.
func (d *dialBacks) allow(now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if since := now.Sub(d.last); since >= 0 && since < dialBackInterval {
		return false
	}
	d.last = now
	return true
}
