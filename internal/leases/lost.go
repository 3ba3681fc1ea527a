package leases

import (
	"fmt"
	"path/filepath"
	"strings"

	"weft/internal/health"
	"weft/internal/hostnet"
	"weft/internal/leases/holder"
)

// defaultIfname is the name of the interface that "weft attach" makes unless it is given another.
const defaultIfname = "eth0"

// lostFindings reports leases that ended because another node owns their addresses now, and were not replaced.
func (m *Manager) lostFindings() []health.Finding {
	var findings []health.Finding
	for _, l := range m.cfg.Allocator.Lost() {
		if len(findings) == maxAddressFindings {
			break
		}
		h := holder.Parse(l.Holder)
		findings = append(findings, health.Finding{
			Code: health.LeaseLost, Key: l.Holder + " " + l.Addr.String(),
			Text:   fmt.Sprintf("The lease of %s to %s has ended: node %s owns that address now.", l.Addr, h, m.ownerName(l.Addr)),
			Remedy: lostRemedy(h),
		})
	}
	return findings
}

// lostRemedy returns what gives a holder an address again.
func lostRemedy(h holder.Holder) string {
	switch h.Kind {
	case holder.Namespace, holder.Process:
		return fmt.Sprintf("Run \"%s\": it gets another address.", attachCommand(h))
	case holder.Container:
		return "Start that container again."
	case holder.Host, holder.Gateway:
		return "Run \"weft hide\", then \"weft expose\"."
	default:
		return fmt.Sprintf("Run \"weft ip allocate %s\", or \"weft ip release %s\" if it needs none any more.", h, h)
	}
}

// attachCommand returns the command that attaches a namespace under its present holder.
func attachCommand(h holder.Holder) string {
	command := "weft attach --netns " + h.Netns
	if strings.HasPrefix(h.Netns, "/proc/") {
		command = "weft attach --pid " + strings.Split(filepath.Clean(h.Netns), "/")[2]
	}
	if h.Ifname != defaultIfname {
		command += " --ifname " + h.Ifname
	}
	return command
}

// dismissLost forgets lost leases of pairs that are gone: nothing needs the address any more.
func (m *Manager) dismissLost() {
	for _, l := range m.cfg.Allocator.Lost() {
		if name, attached := holder.Parse(l.Holder).HostLink(); attached && !hostnet.LinkExists(name) {
			m.cfg.Allocator.Dismiss(l.Holder)
		}
	}
}
