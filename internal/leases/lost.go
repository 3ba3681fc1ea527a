package leases

import (
	"fmt"
	"net/netip"
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
		if h.Kind == holder.Probes {
			continue // they get another one
		}
		findings = append(findings, health.Finding{
			Code: health.LeaseLost, Key: l.Holder + " " + l.Addr.String(),
			Text:   fmt.Sprintf("The lease of %s to %s has ended: %s.", l.Addr, inWords(h), m.lostTo(l.Addr)),
			Remedy: lostRemedy(h, hostnet.LinkExists(h.AttachLink())),
		})
	}
	return findings
}

// inWords returns a holder for people.
func inWords(h holder.Holder) string {
	if h.Kind == holder.Host || h.Kind == holder.Gateway {
		return "the bridge"
	}
	return h.String()
}

// lostTo says where an address went that this node's lease has lost.
func (m *Manager) lostTo(addr netip.Addr) string {
	switch id, known := m.cfg.Allocator.OwnerOf(addr); {
	case !known:
		return "this node does not own that address"
	case id == m.cfg.Self: // again
		return "another node owned that address for some time"
	}
	return "node " + m.ownerName(addr) + " owns that address now"
}

// lostRemedy returns what gives a holder an address again. attached says whether "weft attach" has made a pair for it, which still has
// the address.
func lostRemedy(h holder.Holder, attached bool) string {
	switch h.Kind {
	case holder.Named:
		if attached {
			return fmt.Sprintf("Run \"weft attach\" for its namespace with --owner %s again: it gets another address.", h)
		}
	case holder.Namespace, holder.Process:
		return fmt.Sprintf("Run \"%s\": it gets another address.", attachCommand(h))
	case holder.Container, holder.Docker:
		return "Start that container again."
	case holder.Host, holder.Gateway:
		return "Run \"weft hide\", then \"weft expose\"."
	default:
	}
	return fmt.Sprintf("Run \"weft ip allocate %s\", or \"weft ip release %s\" if it needs none any more.", h, h)
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
