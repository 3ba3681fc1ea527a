package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"weft/internal/leases/holder"
	"weft/internal/podlink"
)

// GC removes the links and ends the leases of this network's attachments that the runtime does not list as valid. It ignores
// leases of other networks, and those that the plugin did not make. It continues after errors and returns the first.
//
// Several runtimes may use one network, and each lists only its own containers. So GC keeps an attachment that exists and that
// the calling runtime did not add, or in which a process runs; see spare. It logs what it removes and what it keeps.
func (p *Plugin) GC(args *skel.CmdArgs) error {
	ctx, cancel := context.WithTimeout(context.Background(), otherTimeout)
	defer cancel()
	c, err := p.newCall(args)
	if err != nil {
		return err
	}
	unlock, err := c.lock(ctx, exclusive)
	if err != nil {
		return err
	}
	defer unlock()
	pairs, err := c.Links.Pairs()
	if err != nil {
		return linkError(err)
	}
	g := collection{call: c, pairs: map[string]podlink.Pair{}, done: map[holder.Holder]bool{}}
	for _, pair := range pairs {
		g.pairs[pair.HostName] = pair
	}
	for _, a := range c.conf.ValidAttachments {
		g.done[holder.ForContainer(c.conf.Name, a.ContainerID, a.IfName)] = true
	}
	if c.delegated() {
		return g.collectDelegated(ctx)
	}
	return g.collectLeased(ctx)
}

// collection is the state of one GC.
type collection struct {
	*call
	pairs map[string]podlink.Pair // by host end
	done  map[holder.Holder]bool  // listed as valid, or handled
}

// collectLeased removes attachments with addresses from the daemon.
func (g *collection) collectLeased(ctx context.Context) error {
	leases, err := g.daemon.Leases(ctx, "")
	if err != nil {
		return daemonError(g.daemon, err)
	}
	var errs []error
	for _, l := range leases {
		h := holder.Parse(l.Owner)
		if !g.claims(h) || g.keeps(h) {
			continue
		}
		if err := g.remove(ctx, h); err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, daemonError(g.daemon, ignoreNotFound(g.daemon.ReleaseBecause(ctx, h.String(), g.reason()))))
	}
	return first(errs)
}

// collectDelegated removes attachments with addresses from another plugin, and calls that plugin. The list for it also has the
// attachments that GC keeps: the plugin would end the reservations of all others.
func (g *collection) collectDelegated(ctx context.Context) error {
	var errs []error
	kept := slices.Clone(g.conf.ValidAttachments)
	for _, pair := range g.pairs {
		if pair.Origin.Delegated && pair.Origin.Holder == "" {
			g.log().Warn("GC does nothing: it does not know which container a link of an older version belongs to", "link", pair.HostName)
			return first(errs)
		}
		h := holder.Parse(pair.Origin.Holder)
		if !pair.Origin.Delegated || !g.claims(h) {
			continue
		}
		if g.keeps(h) {
			kept = append(kept, types.GCAttachment{ContainerID: h.ContainerID, IfName: h.Ifname})
			continue
		}
		errs = append(errs, g.remove(ctx, h))
	}
	conf, err := withAttachments(g.args.StdinData, kept)
	if err != nil {
		return first(append(errs, failure(types.ErrDecodingFailure, err)))
	}
	return first(append(errs, delegateError(g.conf, invoke.DelegateGC(ctx, g.conf.IPAM.Type, conf, g.Exec))))
}

// claims reports whether h is an attachment of this network that is not listed as valid. It returns true once for each holder.
func (g *collection) claims(h holder.Holder) bool {
	if h.Kind != holder.Container || h.Network != g.conf.Name || g.done[h] {
		return false
	}
	g.done[h] = true
	return true
}

// keeps reports whether GC leaves an attachment alone that is not listed as valid, and logs why.
func (g *collection) keeps(h holder.Holder) bool {
	link, _ := h.HostLink()
	pair, exists := g.pairs[link]
	if !exists { // the namespace is gone, or ADD failed
		return false
	}
	why := spare(pair, g.Runtime)
	if why == "" {
		return false
	}
	g.log().Warn("GC keeps an attachment that its list does not have", "holder", h, "link", link, "reason", why)
	return true
}

// spare returns why the list of a runtime cannot know a pair that exists; empty: it knows the pair.
func spare(p podlink.Pair, runtime string) string {
	switch {
	case p.Running:
		return "a process runs in its namespace"
	case p.Origin.Runtime == "":
		return "the runtime that added it is unknown"
	case p.Origin.Runtime != runtime:
		return "another runtime added it: " + p.Origin.Runtime
	}
	return ""
}

// remove removes the link of an attachment.
func (g *collection) remove(ctx context.Context, h holder.Holder) error {
	link, _ := h.HostLink()
	if err := g.Links.Detach(ctx, "", h.Ifname, link); err != nil {
		return linkError(err)
	}
	g.log().Info("GC removed an attachment that its list does not have", "holder", h, "link", link)
	return nil
}

// reason explains to the daemon why GC ends a lease.
func (g *collection) reason() string {
	return fmt.Sprintf("CNI GC of the network %q by %q does not list it", g.conf.Name, g.Runtime)
}

// withAttachments returns a network configuration with another list of valid attachments.
func withAttachments(conf []byte, valid []types.GCAttachment) ([]byte, error) {
	keys := map[string]json.RawMessage{}
	if err := json.Unmarshal(conf, &keys); err != nil {
		return nil, fmt.Errorf("network configuration: %w", err)
	}
	list, err := json.Marshal(slices.Concat([]types.GCAttachment{}, valid)) // "[]", not "null", where it is empty
	if err != nil {
		return nil, fmt.Errorf("valid attachments: %w", err)
	}
	for _, key := range []string{"cni.dev/valid-attachments", "cni.dev/attachments"} { // libcni writes both names
		keys[key] = list
	}
	out, err := json.Marshal(keys)
	if err != nil {
		return nil, fmt.Errorf("network configuration: %w", err)
	}
	return out, nil
}

// first returns the first error, with the others as details: an error of CNI has one code.
func first(errs []error) error {
	all := errors.Join(errs...)
	e, ok := errors.AsType[*types.Error](all)
	if !ok {
		return all
	}
	if all.Error() == e.Error() {
		return e
	}
	return types.NewError(e.Code, e.Msg, all.Error())
}
