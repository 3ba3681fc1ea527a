package leases

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"

	"github.com/vishvananda/netlink"

	"weft/internal/api"
	"weft/internal/dnsname"
	"weft/internal/ether"
	"weft/internal/hint"
	"weft/internal/leases/holder"
	"weft/internal/podlink"
	"weft/ipam"
)

// Attach joins a namespace to the overlay: it leases the addresses, makes the pair of interfaces and gives it its name. A namespace that
// is attached already takes over what differs: the MTU, addresses, the gateway, its name. A failed Attach leaves everything as it was.
func (m *Manager) Attach(ctx context.Context, in api.AttachRequest) (api.Attachment, error) {
	if !m.cfg.Host.Up() {
		return api.Attachment{}, errStarting()
	}
	h, err := attachHolder(in)
	if err != nil {
		return api.Attachment{}, err
	}
	if in.Hostname != "" {
		if in.Hostname, err = m.cfg.Names.Canonical(in.Hostname); err != nil {
			return api.Attachment{}, err
		}
	}
	if err := m.adopt(h); err != nil {
		return api.Attachment{}, err
	}
	if in.Hostname == "" && in.ContainerName != "" && len(m.namesOf(h)) == 0 {
		if in.Hostname, err = m.cfg.Names.Canonical(dnsname.Of(in.ContainerName)); err != nil {
			m.log.Warn("a container has no name in the overlay", "container", in.ContainerName, "err", err)
			in.Hostname = ""
		}
	}
	if isChange(in) {
		m.changing.Lock() // each change begins with the addresses that the last one has left
		defer m.changing.Unlock()
	}
	before := m.lookup(h)
	if in.In, err = m.subnetsOf(in, before); err != nil {
		return api.Attachment{}, err
	}
	allocate := in.In
	if isChange(in) {
		if in, err = m.changed(in, h, before); err != nil {
			return api.Attachment{}, err
		}
		allocate = nil // its addresses are chosen
	}
	join, err := m.join(ctx, h, in.IPs, allocate)
	if err != nil {
		return api.Attachment{}, err
	}
	spec := m.asBefore(in, specOf(in, h, join), before)
	guarded := m.rememberGuard(spec.HostName)
	err = m.attachGuard(ctx, h, in, spec)
	if err == nil {
		_, err = m.cfg.Links.Attach(ctx, spec)
		if errors.Is(err, podlink.ErrExists) {
			return m.attachAgain(ctx, in, h, spec, before, guarded)
		}
		err = explainLink(err)
	}
	if err != nil {
		return api.Attachment{}, errors.Join(err, m.releaseNew(h, before), guarded.restore(ctx))
	}
	m.hardenPort(spec.HostName)
	if err := m.renamed(in.Hostname, h, spec.Addresses); err != nil && in.Hostname == "" {
		m.log.Warn("cannot restore the names of an attachment", "holder", h, "err", err)
	} else if err != nil {
		undo := errors.Join(m.cfg.Links.Detach(ctx, in.Netns, in.Ifname, spec.HostName), m.releaseNew(h, before), guarded.restore(ctx))
		if undo != nil {
			m.log.Warn("undoing an attachment failed", "holder", h, "err", undo)
		}
		return api.Attachment{}, err
	}
	return m.attachment(h, spec), nil
}

// attachment returns the document about an attachment.
func (m *Manager) attachment(h holder.Holder, spec podlink.Spec) api.Attachment {
	doc := api.Attachment{Owner: h.String(), HostLink: spec.HostName, Names: slices.Sorted(maps.Keys(m.namesOf(h)))}
	for _, a := range spec.Addresses {
		doc.Addresses = append(doc.Addresses, api.Address{Address: a.Prefix, Gateway: a.Gateway, MAC: ether.FromIP(a.Prefix.Addr())})
	}
	return doc
}

// name gives the addresses of an attachment the requested name, if there is one.
func (m *Manager) name(name string, h holder.Holder, addrs []podlink.Address) error {
	if name == "" {
		return nil
	}
	ips := make([]netip.Addr, 0, len(addrs))
	for _, a := range addrs {
		ips = append(ips, a.Prefix.Addr())
	}
	return m.cfg.Names.Add(name, h, ips...)
}

// Detach takes a namespace out of the overlay and ends its leases. A namespace that is gone or not attached is success.
func (m *Manager) Detach(ctx context.Context, in api.AttachRequest) error {
	if !m.cfg.Host.Up() {
		return errStarting()
	}
	h, err := attachHolder(in)
	if err != nil {
		return err
	}
	addrs, _, err := m.cfg.Links.Addresses(in.Netns, in.Ifname)
	gone := errors.Is(err, podlink.ErrNetns)
	if err != nil && !gone && !errors.Is(err, podlink.ErrNoLink) {
		return explainLink(err)
	}
	if gone && !m.remembers(h) {
		return hint.New(hint.NotFound, "\"weft ip list\" shows what is attached.",
			"there is no namespace at %s, and nothing is attached under that path", in.Netns)
	}
	if err := m.cfg.Links.Detach(ctx, in.Netns, in.Ifname, ""); err != nil {
		return explainLink(err)
	}
	if _, err := netlink.LinkByName(h.AttachLink()); err == nil && !gone {
		return hint.New(hint.Refused, "Detach that namespace instead.", "%q is attached in another namespace", h)
	}
	if err := m.cfg.Links.Detach(ctx, "", "", h.AttachLink()); err != nil {
		return explainLink(err)
	}
	if err := m.endGuards(ctx, h); err != nil {
		return err
	}
	m.cfg.Names.Release(h, netip.Addr{}) // also of addresses with a lost lease
	m.former.take(h)
	m.cfg.Allocator.Dismiss(h.String())
	return Explain(m.releaseAttachment(h, addrs))
}

// remembers reports whether something is left of the attachment of h: a lease, also a lost one, an address that is held for it, or
// the host end of its pair.
func (m *Manager) remembers(h holder.Holder) bool {
	isLost := func(l ipam.LostLease) bool { return l.Holder == h.String() }
	if len(m.lookup(h))+len(m.heldFor(h)) > 0 || slices.ContainsFunc(m.cfg.Allocator.Lost(), isLost) {
		return true
	}
	_, err := netlink.LinkByName(h.AttachLink())
	return err == nil
}

// releaseAttachment ends the leases of h, and those of addrs that an attachment holds under another name: the same namespace
// by another path, such as that of a process, or one that lost its lease.
func (m *Manager) releaseAttachment(h holder.Holder, addrs []netip.Prefix) error {
	var errs []error
	for _, l := range m.cfg.Allocator.Leases() {
		other := holder.Parse(l.Holder)
		attached := other.Kind == holder.Namespace || other.Kind == holder.Process || other.Kind == holder.Orphan
		alias := attached && slices.ContainsFunc(addrs, func(a netip.Prefix) bool { return a.Addr() == l.Addr })
		if other == h || alias {
			errs = append(errs, m.releaseIfLeased(other, l.Addr))
		}
	}
	return errors.Join(errs...)
}

// attachHolder returns the holder of an attachment's leases.
func attachHolder(in api.AttachRequest) (holder.Holder, error) {
	switch {
	case !filepath.IsAbs(in.Netns):
		return holder.Holder{}, hint.New(hint.Invalid, "Give the absolute path of a network namespace.", "%q is not an absolute path", in.Netns)
	case in.Ifname == "":
		return holder.Holder{}, hint.New(hint.Invalid, "Name the interface inside the namespace, such as eth0.", "the interface name is empty")
	case in.Owner != "":
		return clientHolder(in.Owner)
	}
	return holder.ForNamespace(in.Netns, in.Ifname), nil
}

// specOf returns the pair that joins a namespace with the given addresses. It has no hairpin mode: without a service address a pod
// does not reach itself over the bridge.
func specOf(in api.AttachRequest, h holder.Holder, join api.Join) podlink.Spec {
	spec := podlink.Spec{
		Netns: in.Netns, Ifname: in.Ifname, HostName: h.AttachLink(), Bridge: join.Bridge, MTU: join.MTU,
		MAC: macOf(join.Addresses), DefaultRoute: true, MulticastRoute: !in.NoMulticastRoute && !isChange(in),
	}
	for _, a := range join.Addresses {
		spec.Addresses = append(spec.Addresses, podlink.Address{Prefix: a.Address, Gateway: a.Gateway})
	}
	return spec
}

func macOf(addrs []api.Address) ether.Addr {
	if len(addrs) == 0 {
		return ether.Addr{}
	}
	return addrs[0].MAC
}

// explainLink returns an error of a Linker with its kind and a hint; nil for nil.
func explainLink(err error) error {
	if err == nil {
		return nil
	}
	for _, k := range []struct {
		err  error
		kind hint.Kind
		hint string
	}{
		{
			podlink.ErrNetns, hint.NotFound, "List namespaces with \"ip netns\", or name a running process in it with --pid: that also " +
				"works where " +
				"the daemon does not see the host's mounts.",
		},
		{podlink.ErrExists, hint.Refused, "Choose another --ifname, or run \"weft detach\" for it first."},
		{podlink.ErrBadName, hint.Invalid, "An interface name has 1 to 15 characters, without spaces and slashes."},
		{podlink.ErrBadSpec, hint.Invalid, "Check the addresses."},
		{podlink.ErrNoBridge, hint.Refused, "The bridge has vanished; weft restores it within seconds. Try again then."},
	} {
		if errors.Is(err, k.err) {
			return hint.New(k.kind, k.hint, "%w", err)
		}
	}
	return fmt.Errorf("leases: %w", err)
}
