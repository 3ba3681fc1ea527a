package daemon

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"weft/internal/api"
	"weft/internal/ether"
	"weft/internal/podlink"
	"weft/ipam"
)

// attachPrefix starts the owners that are made from a namespace and an interface.
const attachPrefix = "netns:"

func (d *Daemon) handleAttach(r *http.Request, in api.AttachRequest) (api.Attachment, error) {
	p := d.plane.Load()
	if p == nil {
		return api.Attachment{}, errStarting()
	}
	owner, err := attachOwner(in)
	if err := errors.Join(err, validName(in.Hostname)); err != nil {
		return api.Attachment{}, err
	}
	if err := d.orphans.handOver(owner); err != nil {
		return api.Attachment{}, err
	}
	held := len(d.ipam.Lookup(owner)) > 0
	join, err := p.join(r.Context(), api.JoinRequest{Owner: owner, IPs: in.IPs})
	if err != nil {
		return api.Attachment{}, err
	}
	spec := specOf(in, owner, join)
	_, err = p.linker.Attach(r.Context(), spec)
	if errors.Is(err, podlink.ErrExists) && held && p.linker.Check(spec) == nil {
		err = nil // attached before, the same way
	}
	if err != nil {
		if !held {
			err = errors.Join(err, d.ipam.Release(owner, netip.Addr{}))
		}
		return api.Attachment{}, linkProblem(err)
	}
	if err := d.nameAttachment(in.Hostname, owner, join.Addresses); err != nil {
		if !held {
			err = errors.Join(err, p.linker.Detach(r.Context(), in.Netns, in.Ifname, spec.HostName), d.ipam.Release(owner, netip.Addr{}))
		}
		return api.Attachment{}, nameProblem(err)
	}
	return api.Attachment{Owner: owner, HostLink: spec.HostName, Addresses: join.Addresses}, nil
}

func (d *Daemon) handleDetach(r *http.Request, in api.AttachRequest) (none, error) {
	p := d.plane.Load()
	if p == nil {
		return none{}, errStarting()
	}
	owner, err := attachOwner(in)
	if err != nil {
		return none{}, err
	}
	addrs, _, err := p.linker.Addresses(in.Netns, in.Ifname)
	if err != nil && !errors.Is(err, podlink.ErrNetns) && !errors.Is(err, podlink.ErrNoLink) {
		return none{}, linkProblem(err)
	}
	if detachErr := p.linker.Detach(r.Context(), in.Netns, in.Ifname, ""); detachErr != nil {
		return none{}, linkProblem(detachErr)
	}
	gone := errors.Is(err, podlink.ErrNetns)
	if _, missing := netlink.LinkByName(hostLink(owner)); missing == nil && !gone {
		return none{}, problem(api.KindRefused, "Detach that namespace instead.", "%q is attached in another namespace", owner)
	}
	if err := p.linker.Detach(r.Context(), "", "", hostLink(owner)); err != nil {
		return none{}, linkProblem(err)
	}
	return none{}, ipamProblem(d.releaseAttachment(owner, addrs))
}

// releaseAttachment ends the leases of owner, and those of addrs that an attachment holds under another name: the same
// namespace by another path, such as that of a process, or one whose name was lost.
func (d *Daemon) releaseAttachment(owner string, addrs []netip.Prefix) error {
	var errs []error
	for _, l := range d.ipam.Leases() {
		mine := l.Holder == owner
		alias := (strings.HasPrefix(l.Holder, attachPrefix) || strings.HasPrefix(l.Holder, orphanPrefix)) &&
			slices.ContainsFunc(addrs, func(a netip.Prefix) bool { return a.Addr() == l.Addr })
		if !mine && !alias {
			continue
		}
		if err := d.release(l.Holder, l.Addr); err != nil && !errors.Is(err, ipam.ErrUnknownOwner) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// hostLink returns the name of the host end of an owner's attachment. An owner has one attachment: the name being taken
// keeps a second namespace from getting the same addresses.
func hostLink(owner string) string { return podlink.HostLinkName(owner, "") }

// attachOwner returns the owner of an attachment's leases.
func attachOwner(in api.AttachRequest) (string, error) {
	switch {
	case !filepath.IsAbs(in.Netns):
		return "", problem(api.KindInvalid, "Give the absolute path of a network namespace.", "%q is no absolute path", in.Netns)
	case in.Ifname == "":
		return "", problem(api.KindInvalid, "Name the interface inside the namespace, such as eth0.", "the interface name is empty")
	case in.Owner != "":
		return in.Owner, checkOwner(in.Owner)
	}
	return attachPrefix + filepath.Clean(in.Netns) + "/" + in.Ifname, nil
}

// specOf returns the pair that joins a namespace with the given addresses.
func specOf(in api.AttachRequest, owner string, join api.Join) podlink.Spec {
	spec := podlink.Spec{
		Netns: in.Netns, Ifname: in.Ifname, HostName: hostLink(owner), Bridge: join.Bridge, MTU: join.MTU,
		MAC: macOf(join.Addresses), Hairpin: true, DefaultRoute: true,
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

// linkProblem tells the client what kind of error a Linker's is.
func linkProblem(err error) error {
	for _, k := range []struct {
		err  error
		kind api.Kind
		hint string
	}{
		{
			podlink.ErrNetns, api.KindNotFound, "List namespaces with \"ip netns\", or name a running process in it with --pid: that finds one also where " +
				"the daemon does not see the host's mounts.",
		},
		{podlink.ErrExists, api.KindRefused, "Choose another --ifname, or \"weft detach\" it first."},
		{podlink.ErrBadName, api.KindInvalid, "An interface name has 1 to 15 characters, without spaces and slashes."},
		{podlink.ErrBadSpec, api.KindInvalid, "Check the addresses."},
		{podlink.ErrNoBridge, api.KindRefused, "The bridge has vanished: restart the daemon, which makes it again."},
	} {
		if errors.Is(err, k.err) {
			return problem(k.kind, k.hint, "%v", err)
		}
	}
	return fmt.Errorf("daemon: %w", err)
}
