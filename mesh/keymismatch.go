package mesh

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"weft/mesh/mismatch"
)

// KeyMismatches returns the addresses of nodes that seem to have no secret in common with this one, of the last minutes:
// at most 16, ordered. Addresses at which a member is alive now are left out: the mismatch there is over.
func (m *Mesh) KeyMismatches() []mismatch.Entry {
	list := m.keyMismatches.List(time.Now())
	return slices.DeleteFunc(list, func(k mismatch.Entry) bool { return m.roster.aliveAtHost(k.Addr) })
}

// reportMismatch records a key mismatch, and logs it unless it was logged lately.
func (m *Mesh) reportMismatch(addr netip.Addr, reason mismatch.Reason) {
	now := time.Now()
	if !m.keyMismatches.Record(addr, reason, now) {
		return
	}
	if _, ok := m.mismatchLog.Admit(now); ok {
		m.log.Warn("gossip of a node refused: no secret in common", "addr", addr, "reason", "it "+reason.String(),
			"remedy", reason.Remedy())
	}
}

// isOtherSecret reports whether err means that both nodes have secrets, and that the one in use here is unknown there.
func isOtherSecret(err error) bool {
	e, ok := errors.AsType[*mismatch.Error](err)
	return ok && e.Reason == mismatch.Other
}
