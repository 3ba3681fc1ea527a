package mesh

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"weft/internal/peer"
)

// ErrDuplicateKey is wrapped by Run's error where another live node has the same key and was there first.
var ErrDuplicateKey = errors.New("mesh: another node runs with this node's key")

// An instance message goes straight to an address at which somebody claims to have this node's key. Old news of the
// node's own earlier address and a clone of its disk look the same in gossip; only a clone can receive the message and
// be another instance.
//
//	 0            8         16         24        25        27
//	+------------+---------+----------+---------+---------+-----------+
//	| node ID    | started | instance | answer? | port    | address   |  of the sender
//	+------------+---------+----------+---------+---------+-----------+
const instanceFixed = 8 + 8 + 8 + 1 + 2

// askPause is how often at most a node asks who else has its key: gossip repeats itself.
const askPause = 200 * time.Millisecond

// clashed is called when gossip has this node's own ID at another address.
func (m *Mesh) clashed(at netip.AddrPort) {
	m.contested.Store(true)
	now, last := time.Now().UnixNano(), m.asked.Load()
	if now-last >= int64(askPause) && m.asked.CompareAndSwap(last, now) {
		m.sendInstance(at, false)
	}
}

func (m *Mesh) sendInstance(to netip.AddrPort, answer bool) {
	self := m.cfg.Identity.ID
	msg := append([]byte{byte(kindInstance)}, self[:]...)
	msg = binary.BigEndian.AppendUint64(msg, uint64(m.started.UnixNano()))
	msg = binary.BigEndian.AppendUint64(msg, m.instance)
	msg = append(msg, boolByte(answer))
	msg = binary.BigEndian.AppendUint16(msg, m.cfg.Advertise.Port())
	msg = append(msg, m.cfg.Advertise.Addr().AsSlice()...)
	if err := m.enqueue(outgoing{to: to, msg: msg}); err != nil {
		m.log.Debug("asking who else has this key", "addr", to, "err", err)
	}
}

// instanceMessage takes in an instance message: where it comes from another process with this node's key, the one
// that was started later gives way, and the earlier one tells it.
func (m *Mesh) instanceMessage(body []byte) {
	if len(body) < instanceFixed {
		m.malformed(peer.ID{})
		return
	}
	addr, ok := netip.AddrFromSlice(body[instanceFixed:])
	if !ok || peer.ID(body[:8]) != m.cfg.Identity.ID {
		m.malformed(peer.ID{})
		return
	}
	started := time.Unix(0, int64(binary.BigEndian.Uint64(body[8:])))
	instance := binary.BigEndian.Uint64(body[16:])
	sender := netip.AddrPortFrom(addr, binary.BigEndian.Uint16(body[25:]))
	if instance == m.instance {
		return // an address of this very process
	}
	earlier := started.Before(m.started) || (started.Equal(m.started) && instance < m.instance)
	if earlier {
		m.fail(fmt.Errorf("%w: %s at %s, since %s", ErrDuplicateKey,
			m.cfg.Identity.ID, sender.Addr(), started.UTC().Format(time.RFC3339)))
		return
	}
	m.log.Warn("a node started later with this node's key: it has to give way", "addr", sender)
	if body[24] == 0 {
		m.sendInstance(sender, true)
	}
}

func boolByte(b bool) byte {
	if b {
		return 1
	}
	return 0
}
