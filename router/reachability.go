package router

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"weft/internal/peer"
)

// ErrNoAnswer is returned by Knock where the peer did not say that it has knocked.
var ErrNoAnswer = errors.New("router: no answer")

const (
	// knockPause is how long an answer is waited for before the peer is asked again.
	knockPause = 700 * time.Millisecond
	// knockTries is how often it is asked.
	knockTries = 3
	// knockEach is how often at most this node knocks for others.
	knockEach = 50 * time.Millisecond
)

// knocks are those that this node waits for, and when it last knocked itself.
type knocks struct {
	mu   sync.Mutex
	open map[uint64]*waitingKnock
	last time.Time
}

// waitingKnock is closed in its parts: by the knock itself, and by the word of who has sent it.
type waitingKnock struct{ heard, sent func() }

// Knock asks a peer to send this node a datagram from a port that nothing was ever sent to, and reports whether it came:
// where it does not, this node is behind a NAT or a firewall that lets in only answers. The errors are ErrNoAnswer,
// where the peer did not do so, those of SendControl, and that of ctx.
func (e *Engine) RequestDialBack(ctx context.Context, by peer.ID) (came bool, err error) {
	token := rand.Uint64()
	heard, sent := make(chan struct{}), make(chan struct{})
	e.knocks.add(token, &waitingKnock{sync.OnceFunc(func() { close(heard) }), sync.OnceFunc(func() { close(sent) })})
	defer e.knocks.remove(token)
	message := binary.BigEndian.AppendUint64([]byte{controlKnock}, token)
	for range knockTries {
		if err = e.SendControl(by, controlEngine, message); errors.Is(err, ErrNoPeer) {
			return false, err
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-heard:
			return true, nil
		case <-time.After(knockPause):
		}
	}
	select {
	case <-sent:
		return false, nil
	default:
		return false, errors.Join(ErrNoAnswer, err)
	}
}

func (k *knocks) add(token uint64, w *waitingKnock) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.open == nil {
		k.open = map[uint64]*waitingKnock{}
	}
	k.open[token] = w
}

func (k *knocks) remove(token uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.open, token)
}

// heard notes that a knock has come.
func (k *knocks) heard(token uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if w := k.open[token]; w != nil {
		w.heard()
	}
}

// sent notes that a peer says that it has knocked.
func (k *knocks) sent(token uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if w := k.open[token]; w != nil {
		w.sent()
	}
}

// allow reports whether this node may knock for somebody at now.
func (k *knocks) allow(now time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if since := now.Sub(k.last); since >= 0 && since < knockEach {
		return false
	}
	k.last = now
	return true
}
