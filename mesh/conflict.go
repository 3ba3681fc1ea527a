package mesh

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"weft/internal/peer"
)

// ErrDuplicateKey is wrapped by Run's error when another live node has the same key and was started earlier.
var ErrDuplicateKey = errors.New("mesh: another node runs with this node's key")

// An instance message asks the process at an address, which gossip gives for this node's own ID, whether it is another
// process. In gossip the node's own earlier address and a copy of its disk look the same; only a copy can receive the
// message and be another instance (docs/adr/0003-duplicate-keys.md). The fields are those of the sender; numbers are big
// endian:
//
//	 0            8         16         24        25        27
//	+------------+---------+----------+---------+---------+-----------+
//	| node ID    | started | instance | answer? | port    | address   |
//	+------------+---------+----------+---------+---------+-----------+
const instanceFixed = 8 + 8 + 8 + 1 + 2

// instancePause is the shortest time between two instance messages of a node: gossip repeats itself.
const instancePause = 200 * time.Millisecond

// reportOwnKey implements admission: it sends an instance message to the address at which gossip has this node's own ID.
func (m *Mesh) reportOwnKey(at netip.AddrPort) {
	m.keyContested.Store(true)
	now, last := time.Now().UnixNano(), m.instanceSent.Load()
	if now-last >= int64(instancePause) && m.instanceSent.CompareAndSwap(last, now) {
		m.sendInstance(at, false)
	}
}

func (m *Mesh) sendInstance(to netip.AddrPort, answer bool) {
	self := m.cfg.Identity.ID
	msg := append([]byte{byte(kindInstance)}, self[:]...)
	msg = binary.BigEndian.AppendUint64(msg, uint64(m.started.UnixNano()))
	msg = binary.BigEndian.AppendUint64(msg, m.instance)
	msg = append(msg, boolByte(answer))
	at := m.at.Load().addr
	msg = binary.BigEndian.AppendUint16(msg, at.Port())
	msg = append(msg, at.Addr().AsSlice()...)
	if err := m.enqueue(outgoing{to: to, msg: msg}); err != nil {
		m.log.Debug("instance message not sent", "addr", to, "err", err)
	}
}

// handleInstance handles an instance message. When it comes from another process with this node's key, the process that
// was started later ends its Run, and the earlier one answers the later one.
func (m *Mesh) handleInstance(body []byte) {
	if len(body) < instanceFixed {
		m.countMalformed(peer.ID{})
		return
	}
	addr, ok := netip.AddrFromSlice(body[instanceFixed:])
	if !ok || peer.ID(body[:8]) != m.cfg.Identity.ID {
		m.countMalformed(peer.ID{})
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
	m.log.Warn("another node was started later with this node's key, and has to stop", "addr", sender)
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
