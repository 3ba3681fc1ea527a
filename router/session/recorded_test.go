package session

import (
	"errors"
	"testing"
	"time"

	"weft/internal/ratelimit"
)

// provenInitiation returns an initiation of the first of two nodes, made at now with a cookie of the other node.
func provenInitiation(t *testing.T, nodes []*Node, peers []Peer, now time.Time) []byte {
	t.Helper()
	r := nodes[0].remotes[peers[1].ID]
	nodes[0].dropSessions(r)
	nodes[1].limiter.free = ratelimit.New(0, 0)
	nodes[0].RequestSession(peers[1].ID, now)
	messages, _ := nodes[0].Drain()
	if nodes[1].cookies.valid(peers[0].Addr, messages[0].Datagram) {
		return messages[0].Datagram // with the cookie of an earlier one
	}
	if err := nodes[1].Receive(messages[0].Datagram, peers[0].Addr, now); !errors.Is(err, ErrBusy) {
		t.Fatalf("without a cookie: %v", err)
	}
	cookies, _ := nodes[1].Drain()
	deliver(t, nodes[0], cookies[0].Datagram, peers[1].Addr, now)
	messages, _ = nodes[0].Drain()
	return messages[0].Datagram
}

// TestRecordedInitiations: each initiation with a valid cookie is accepted once, in whatever order they are sent again,
// and none of them after its cookie expired.
func TestRecordedInitiations(t *testing.T) {
	nodes, peers := newNodes(t, Config{}, Config{})
	now := epoch
	var recorded [][]byte
	for range 3 {
		now = now.Add(time.Second)
		recorded = append(recorded, provenInitiation(t, nodes, peers, now))
	}
	taken := map[int]int{}
	for range 3 {
		for _, i := range []int{2, 0, 1, 0, 2, 1} {
			now = now.Add(100 * time.Millisecond)
			if nodes[1].Receive(recorded[i], peers[0].Addr, now) == nil {
				taken[i]++
			}
		}
	}
	for i := range recorded {
		if taken[i] != 1 {
			t.Errorf("initiation %d was taken %d times", i, taken[i])
		}
	}
	now = now.Add(time.Second)
	old := provenInitiation(t, nodes, peers, now)
	if err := nodes[1].Receive(old, peers[0].Addr, now.Add(2*cookieAge)); err == nil {
		t.Error("a cookie of long ago is taken")
	}
}

// TestDroppedSecretUnderWay: a handshake fails if its secret was removed meanwhile, at either end.
func TestDroppedSecretUnderWay(t *testing.T) {
	for dropped := range 2 {
		nodes, peers := newNodes(t, Config{Secrets: []Secret{secretOf(1)}}, Config{Secrets: []Secret{secretOf(1)}})
		nodes[0].RequestSession(peers[1].ID, epoch)
		initiation, _ := nodes[0].Drain()
		deliver(t, nodes[1], initiation[0].Datagram, peers[0].Addr, epoch)
		response, _ := nodes[1].Drain()
		nodes[dropped].SetSecrets([]Secret{secretOf(2)}, epoch)
		_ = nodes[0].Receive(response[0].Datagram, peers[1].Addr, epoch)
		keepalive, _ := nodes[0].Drain()
		for _, m := range keepalive {
			_ = receive(nodes[1], m.Datagram, peers[0].Addr, epoch)
		}
		if s := nodes[dropped].Info(peers[1-dropped].ID).Session; s != nil {
			t.Errorf("node %d has a session by a secret that it has dropped", dropped)
		}
	}
}
