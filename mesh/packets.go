package mesh

import (
	"crypto/rand"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/hashicorp/memberlist"

	"weft/internal/peer"
	"weft/mesh/freshness"
	"weft/mesh/gate"
	"weft/mesh/mismatch"
	"weft/mesh/seal"
	"weft/mesh/sieve"
)

// answersPerSecond bounds the answers to challenges. A recorded challenge is answered as often as it is sent again.
const answersPerSecond = 1000

// origin is where a packet came from: an address, or the tunnel of a peer.
type origin struct {
	addr   net.Addr // nil: the tunnel
	tunnel peer.ID
}

// heldPacket is an authentic packet of memberlist's that waits until its sender has proven that it is there.
type heldPacket struct {
	sender peer.ID
	body   []byte
	from   origin
	at     time.Time
}

func newNonce() (n seal.Nonce) {
	_, _ = rand.Read(n[:]) // never fails
	return n
}

// receivePacket opens a packet, and passes it on if it is fresh. It does not keep b.
func (t *sealedTransport) receivePacket(b []byte, from origin, at time.Time) {
	kind, head, body, _, err := seal.Open(t.mesh.keys.InUse().Packets, b)
	if err != nil {
		t.countUnopened(err, from)
		return
	}
	self := t.mesh.cfg.Identity.ID
	if t.mesh.identities.IsRevoked(head.Sender) {
		t.mesh.drops.notAdmitted.Add(1)
		return
	}
	if !head.Receiver.IsZero() && head.Receiver != self || from.addr == nil && head.Sender != from.tunnel {
		t.mesh.drops.misdirected.Add(1)
		return
	}
	sender := freshness.Instance{Node: head.Sender, Run: head.Instance}
	stamp := freshness.Stamp{Counter: head.Counter, Uptime: head.Uptime}
	switch kind {
	case seal.Packet:
		t.receiveGossip(heldPacket{head.Sender, body, from, at}, sender, stamp)
	case seal.Challenge:
		t.answerChallenge(head, body, from)
	case seal.Answer:
		t.receiveAnswer(sender, stamp, body)
	}
}

// countUnopened counts a packet that could not be opened.
func (t *sealedTransport) countUnopened(err error, from origin) {
	switch {
	case errors.Is(err, seal.ErrVersion):
		t.mesh.drops.version.Add(1)
	case errors.Is(err, seal.ErrKey):
		t.mesh.drops.noKey.Add(1)
		if t.fromCertified(from) {
			return
		}
		reason := mismatch.Unclear // a packet without a secret looks like one under another secret
		if !t.mesh.keys.Sealed() {
			reason = mismatch.Here
		}
		if from.addr != nil {
			t.mesh.reportMismatch(gate.HostOf(from.addr), reason)
		}
	default:
		t.mesh.countMalformed(from.tunnel)
	}
}

// fromCertified reports whether a packet that no key opens comes from where a member with a certificate is. Then the member may seal
// with an epoch that this node does not have yet, and is asked for it.
func (t *sealedTransport) fromCertified(from origin) bool {
	id, known := from.tunnel, from.addr == nil
	if from.addr != nil {
		at, err := netip.ParseAddrPort(from.addr.String())
		if err != nil {
			return false
		}
		id, known = t.mesh.roster.memberAt(netip.AddrPortFrom(at.Addr().Unmap(), at.Port()))
	}
	if !known || !t.mesh.roster.isCertified(id) {
		return false
	}
	t.mesh.identities.Unopened(id)
	return true
}

// receiveGossip judges an authentic packet of memberlist's: it delivers or drops it, or challenges its sender.
func (t *sealedTransport) receiveGossip(p heldPacket, sender freshness.Instance, stamp freshness.Stamp) {
	t.freshMu.Lock()
	verdict, nonce, challenge := t.fresh.Receive(sender, stamp, p, time.Now())
	lost := t.fresh.TakeLost()
	t.freshMu.Unlock()
	t.mesh.drops.unproven.Add(uint64(lost))
	switch verdict {
	case freshness.Fresh:
		t.deliver(p)
	case freshness.Replayed:
		t.mesh.drops.replayed.Add(1)
	case freshness.Unproven:
		if challenge {
			t.challenge(sender, nonce, p.from)
		}
	}
}

// challenge asks an instance to prove that it is there: the way its packet came, and at the address where gossip has it,
// so that a recorded packet that is sent again does not lead the challenge away.
func (t *sealedTransport) challenge(to freshness.Instance, nonce seal.Nonce, via origin) {
	body := seal.Proof{Instance: to.Run, Nonce: nonce}.Append(nil)
	t.sendBack(seal.Challenge, body, to.Node, via)
	if m, known := t.mesh.roster.lookup(to.Node); known && via.addr != nil && m.GossipAddr().String() != via.addr.String() {
		if _, err := t.sendPacket(seal.Challenge, body, to.Node, m.GossipAddr().String()); err != nil {
			t.mesh.log.Debug("challenge not sent", "peer", to.Node, "err", err)
		}
	}
}

// sendBack sends a packet the way from which another one came.
func (t *sealedTransport) sendBack(kind seal.Type, body []byte, to peer.ID, via origin) {
	packet := t.seal(kind, body, to)
	if via.addr == nil {
		t.sendTunneled(to, packet)
		return
	}
	if _, err := t.under.WriteTo(packet, via.addr.String()); err != nil {
		t.mesh.log.Debug("packet not sent", "addr", via.addr, "err", err)
	}
}

// answerChallenge answers a challenge of this very process. The answer is as long as the challenge.
func (t *sealedTransport) answerChallenge(head seal.Header, body []byte, from origin) {
	proof, err := seal.ParseProof(body)
	if err != nil {
		t.mesh.countMalformed(head.Sender)
		return
	}
	if proof.Instance != t.mesh.instance || head.Receiver != t.mesh.cfg.Identity.ID {
		t.mesh.drops.misdirected.Add(1) // as for the run of this node before
		return
	}
	t.mu.Lock()
	ok := t.answers.Allow(time.Now())
	t.mu.Unlock()
	if !ok {
		t.mesh.drops.queueFull.Add(1)
		return
	}
	t.sendBack(seal.Answer, seal.Proof{Instance: head.Instance, Nonce: proof.Nonce}.Append(nil), head.Sender, from)
}

// receiveAnswer handles the answer to a challenge, and delivers the packets that have waited for it.
func (t *sealedTransport) receiveAnswer(sender freshness.Instance, stamp freshness.Stamp, body []byte) {
	proof, err := seal.ParseProof(body)
	if err != nil {
		t.mesh.countMalformed(sender.Node)
		return
	}
	if proof.Instance != t.mesh.instance {
		t.mesh.drops.misdirected.Add(1)
		return
	}
	t.freshMu.Lock()
	held, ok := t.fresh.Answer(sender, proof.Nonce, stamp, time.Now())
	lost := t.fresh.TakeLost()
	t.freshMu.Unlock()
	t.mesh.drops.unproven.Add(uint64(lost))
	if !ok {
		t.mesh.drops.replayed.Add(1)
	}
	for _, p := range held {
		t.deliver(p)
	}
}

// admit records that an instance was proven by a stream with a handshake that began at asked, and delivers its packets
// that have waited.
func (t *sealedTransport) admit(r seal.Remote, asked time.Time) {
	sender := freshness.Instance{Node: peer.FromPublicKey(r.Public), Run: r.Instance}
	t.freshMu.Lock()
	held := t.fresh.Admit(sender, freshness.Stamp{Counter: r.Counter, Uptime: r.Uptime}, asked, time.Now())
	lost := t.fresh.TakeLost()
	t.freshMu.Unlock()
	t.mesh.drops.unproven.Add(uint64(lost))
	for _, p := range held {
		t.deliver(p)
	}
}

// deliver passes a fresh packet to memberlist. It blocks while memberlist does not receive, until Shutdown.
func (t *sealedTransport) deliver(p heldPacket) {
	if err := sieve.Packet(p.body, sieve.MaxIncarnation(time.Now())); err != nil {
		t.mesh.rejected.record(&t.mesh.drops.malformed, p.sender, err)
		return
	}
	from := p.from.addr
	if from == nil {
		member, known := t.mesh.roster.lookup(p.from.tunnel)
		if !known {
			return // it joins by a stream first
		}
		from = net.UDPAddrFromAddrPort(member.GossipAddr())
	} else {
		t.recordHeard(from.String())
	}
	select {
	case t.packets <- &memberlist.Packet{Buf: p.body, From: from, Timestamp: p.at}:
	case <-t.stop:
	}
}
