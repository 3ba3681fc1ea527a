package wireguard

import (
	"errors"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
	"pgregory.net/rapid"

	"weft/internal/peer"
)

var (
	lower, higher = peer.ID{1}, peer.ID{2}
	start         = time.Unix(1_700_000_000, 0)
)

func key(t testing.TB) wgtypes.Key {
	t.Helper()
	k, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// pairOf returns two exchanges that know nothing of each other.
func pairOf(t testing.TB) [2]*Exchange {
	t.Helper()
	return [2]*Exchange{
		NewExchange(lower, higher, key(t), 6786, [32]byte{1}), NewExchange(higher, lower, key(t), 6787, [32]byte{2}),
	}
}

// run passes messages between the exchanges, with those that are due, until there are none for a while. It returns their number.
// lose reports whether the message with a number is lost.
func run(t testing.TB, e [2]*Exchange, now time.Time, lose func(n int) bool) (sent int, end time.Time) {
	t.Helper()
	for range 1000 {
		for i := range e {
			for from, m := i, e[i].Next(now); m != nil; from = 1 - from {
				if sent++; lose(sent - 1) {
					break
				}
				answer, err := e[1-from].Receive(m, now)
				if err != nil && !errors.Is(err, ErrProof) {
					t.Fatal(err)
				}
				m = answer
			}
		}
		now = now.Add(500 * time.Millisecond)
	}
	return sent, now
}

func never(int) bool { return false }

// agree checks that both nodes have the same tunnel.
func agree(t testing.TB, e [2]*Exchange) wgtypes.Key {
	t.Helper()
	a, toB := e[0].Tunnel()
	b, toA := e[1].Tunnel()
	if !e[0].Complete() || !e[1].Complete() || a.Preshared != b.Preshared || a.Public != e[1].own.public || b.Public != e[0].own.public ||
		toB != e[1].own.port || toA != e[0].own.port {
		t.Fatalf("complete %v, %v; %+v to port %d, %+v to port %d", e[0].Complete(), e[1].Complete(), a, toB, b, toA)
	}
	return a.Preshared
}

// TestExchange: four messages make a tunnel, and another share makes another preshared key.
func TestExchange(t *testing.T) {
	e := pairOf(t)
	sent, now := run(t, e, start, never)
	first := agree(t, e)
	if sent > 5 {
		t.Errorf("%d messages", sent)
	}
	e[1].Renew(6788, [32]byte{3})
	if e[1].Proven() {
		t.Error("proven before the peer has the new share")
	}
	run(t, e, now, never)
	if agree(t, e) == first {
		t.Error("the preshared key is the same")
	}
}

// TestExchangeLoss: whatever messages are lost, both nodes agree in the end, and then are silent.
func TestExchangeLoss(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		e := pairOf(t)
		now := start
		for round := range 3 {
			lost := rapid.SliceOfN(rapid.Bool(), 8, 8).Draw(rt, "lost")
			_, now = run(t, e, now, func(n int) bool { return n < len(lost) && lost[n] })
			agree(t, e)
			if sent, _ := run(t, e, now, never); sent != 0 {
				rt.Fatalf("%d messages after all is said", sent)
			}
			i := rapid.IntRange(0, 1).Draw(rt, "renews")
			if rapid.Bool().Draw(rt, "restarts") {
				e[i] = NewExchange(e[i].self, e[i].peer, key(t), 7000, [32]byte{byte(round), 9})
			} else {
				e[i].Renew(6786, [32]byte{byte(round), 8})
			}
		}
	})
}

// TestExchangeForeignKey: a peer that offers the key of another node cannot prove it, and neither makes a tunnel nor has this node
// send without end.
func TestExchangeForeignKey(t *testing.T) {
	e := pairOf(t)
	victim := key(t)
	e[1].own.public = victim.PublicKey()
	sent, _ := run(t, e, start, never)
	if e[0].Proven() || e[0].Complete() {
		t.Error("a key without an owner was proven")
	}
	if sent > 120 {
		t.Errorf("%d messages in 500 s", sent)
	}
}

// TestExchangeRefuses: what is no message changes nothing.
func TestExchangeRefuses(t *testing.T) {
	e := pairOf(t)
	run(t, e, start, never)
	before := agree(t, e)
	own := e[0].message()
	low := append([]byte{version, 0, 0, 1}, make([]byte, MessageLen-4)...) // a public key of low order
	for name, c := range map[string]struct {
		message []byte
		want    error
	}{
		"empty": {nil, ErrMessage}, "short": {own[:MessageLen-1], ErrMessage}, "long": {append(own[:MessageLen:MessageLen], 0), ErrMessage},
		"other version": {append([]byte{2}, own[1:]...), ErrVersion}, "reflected": {own, ErrMessage},
	} {
		if _, err := e[0].Receive(c.message, start); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if agree(t, e) != before {
		t.Error("the tunnel has changed")
	}
	if _, err := e[0].Receive(low, start); err != nil || e[0].Proven() {
		t.Errorf("a key of low order: %v, proven %v", err, e[0].Proven())
	}
}

// FuzzReceive: no message makes a tunnel without a proof.
func FuzzReceive(f *testing.F) {
	e := pairOf(f)
	f.Add(e[1].message())
	f.Fuzz(func(t *testing.T, message []byte) {
		e := pairOf(t)
		if _, err := e[0].Receive(message, start); err == nil && e[0].Proven() {
			t.Error("proven by a message that knows nothing of this node")
		}
	})
}
