package node

import (
	"errors"
	"net/netip"
	"strings"

	"weft/internal/api"
	"weft/internal/controlplane"
	"weft/internal/dns"
	"weft/internal/hint"
	"weft/internal/leases"
	"weft/internal/leases/holder"
	"weft/internal/settings"
)

// names is the registry of names as the leases see it. It implements leases.Names.
type names struct {
	registry *dns.Registry
	cfg      settings.Config
	members  *controlplane.Members
}

// Canonical implements leases.Names.
func (n names) Canonical(name string) (string, error) {
	name, err := dns.ParseName(name, n.cfg.Domain())
	if err == nil {
		err = checkUnreserved(name)
	}
	return name, explainName(err)
}

// checkUnreserved refuses the names of Docker networks, which say what subnets are taken.
func checkUnreserved(name string) error {
	if strings.HasSuffix(strings.TrimSuffix(strings.ToLower(name), "."), "."+networksLabel) {
		return hint.New(hint.Invalid, "Choose a name that does not end with ."+networksLabel+".", "the name %q is that of a Docker network", name)
	}
	return nil
}

// Add implements leases.Names.
func (n names) Add(name string, h holder.Holder, addrs ...netip.Addr) error {
	return explainName(n.registry.Add(name, h.String(), addrs...))
}

// Release implements leases.Names.
func (n names) Release(h holder.Holder, addr netip.Addr) { n.registry.Release(h.String(), addr) }

// Held implements leases.Names.
func (n names) Held() []leases.HeldName {
	var held []leases.HeldName
	for _, e := range n.registry.Own() {
		if h := holder.Parse(e.Holder); h.Kind != holder.Names {
			held = append(held, leases.HeldName{Name: e.Name, Holder: h, Addr: e.Addr, Withdrawn: e.Withdrawn})
		}
	}
	return held
}

// Withdraw implements leases.Names.
func (n names) Withdraw(h holder.Holder) { n.registry.Withdraw(h.String()) }

// Restore implements leases.Names.
func (n names) Restore(h holder.Holder) error { return explainName(n.registry.Restore(h.String())) }

// Remove implements leases.Names.
func (n names) Remove(name string, addrs ...netip.Addr) error {
	return explainName(n.registry.Remove(name, addrs...))
}

// AllNames implements apiserver.Names.
func (n names) AllNames() []api.Name {
	return n.documents(func(dns.Entry) bool { return true })
}

// NamesOf implements apiserver.Names.
func (n names) NamesOf(text string) ([]api.Name, error) {
	name, err := dns.ParseName(text, n.cfg.Domain())
	if err != nil {
		return nil, explainName(err)
	}
	return n.documents(func(e dns.Entry) bool { return e.Name == name && n.answered(e) }), nil
}

// NamesAt implements apiserver.Names.
func (n names) NamesAt(addr netip.Addr) []api.Name {
	return n.documents(func(e dns.Entry) bool { return e.Addr == addr && n.answered(e) })
}

// documents returns the entries that match selects; never nil.
func (n names) documents(match func(dns.Entry) bool) []api.Name {
	docs := []api.Name{}
	for _, e := range n.registry.List() {
		if match(e) {
			docs = append(docs, api.Name{
				Name: e.Name, IP: e.Addr, Node: e.Node, NodeName: n.members.NodeName(e.Node), Source: n.source(e), Owner: e.Holder,
				Answered: n.answered(e),
			})
		}
	}
	return docs
}

// dockerPrefix begins the owners of the containers of Docker.
const dockerPrefix = "docker/"

// gatewayPrefix begins the owners of the gateways of Docker networks.
const gatewayPrefix = dockerPrefix + "gateway/"

// source returns where a name comes from.
func (n names) source(e dns.Entry) api.NameSource {
	if e.Node != n.members.Self() {
		return api.NameFromNode
	}
	if strings.HasPrefix(e.Holder, dockerPrefix) {
		return api.NameFromDocker
	}
	switch holder.Parse(e.Holder).Kind {
	case holder.Namespace, holder.Process:
		return api.NameFromAttach
	case holder.Container:
		return api.NameFromContainer
	case holder.Names:
		return api.NameFromAdd
	default:
		return api.NameFromOwner
	}
}

// answered reports whether queries for an entry are answered: names of nodes that are not alive are not.
func (n names) answered(e dns.Entry) bool {
	return e.Node == n.members.Self() || n.members.Alive(e.Node)
}

// requestedNames are the names with the requests of clients. It implements apiserver.Names.
type requestedNames struct {
	names
	leases *leases.Manager
}

// AddName implements apiserver.Names.
func (n requestedNames) AddName(in api.NameRequest) error {
	for _, ip := range in.IPs {
		switch ip := ip.Unmap(); {
		case n.cfg.InRanges(ip):
		case !in.External:
			return hint.New(hint.Invalid, "\"weft ipam\" shows the ranges; \"weft dns add --external\" names an address outside them.",
				"%s is in none of the overlay's ranges", ip)
		case ip.IsLoopback() || ip.IsLinkLocalUnicast():
			return hint.New(hint.Invalid, "Give the address at which other hosts reach it.", "%s is another host on each host that asks", ip)
		}
	}
	if !strings.HasPrefix(in.Owner, gatewayPrefix) {
		if err := checkUnreserved(strings.TrimSuffix(strings.TrimSuffix(in.Name, "."), "."+n.cfg.Domain())); err != nil {
			return err
		}
	}
	if in.Owner == "" {
		return n.Add(in.Name, holder.ForNames(), in.IPs...)
	}
	return n.leases.AddName(in)
}

// RemoveName implements apiserver.Names.
func (n requestedNames) RemoveName(in api.NameRequest) error {
	if in.Owner == "" {
		return n.Remove(in.Name, in.IPs...)
	}
	return n.leases.RemoveName(in)
}

// removeOwn removes all names of this node, for one that leaves.
func (n names) removeOwn() error {
	var errs []error
	for _, e := range n.registry.Own() {
		errs = append(errs, n.registry.Remove(e.Name, e.Addr))
	}
	return errors.Join(errs...)
}

// explainName returns an error of the registry with its kind and a hint; nil for nil.
func explainName(err error) error {
	if _, explained := errors.AsType[*hint.Error](err); explained {
		return err
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, dns.ErrName):
		return hint.New(hint.Invalid, "A name consists of letters, digits and hyphens, with dots between labels, such as web or web.shop.",
			"%w", err)
	case errors.Is(err, dns.ErrUnknown):
		return hint.New(hint.NotFound, "Each node removes its own names: \"weft dns list\" shows which node has it.", "%w", err)
	case errors.Is(err, dns.ErrFull):
		return hint.New(hint.Exhausted, "Remove unused names: \"weft dns list\" shows them.", "%w", err)
	case errors.Is(err, dns.ErrAddress):
		return hint.New(hint.Invalid, "Give at least one address of a host.", "%w", err)
	}
	return hint.New(hint.Internal, "The daemon's log has more.", "%w", err)
}
