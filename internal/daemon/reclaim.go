package daemon

import (
	"fmt"
	"net/http"
	"slices"

	"weft/internal/api"
	"weft/internal/peer"
	"weft/ipam"
	"weft/mesh"
)

// handleReclaim takes the address space of nodes that are gone for good.
func (d *Daemon) handleReclaim(r *http.Request, in api.ReclaimRequest) ([]api.Reclaimed, error) {
	if len(in.Peers) == 0 {
		return nil, problem(api.KindInvalid, "Name a node by its ID or its nickname.", "no node is named")
	}
	var gone []peer.ID
	for _, name := range in.Peers {
		id, err := d.goneNode(name)
		if err != nil {
			return nil, err
		}
		gone = append(gone, id)
	}
	results, err := d.ipam.Reclaim(r.Context(), gone...)
	if err != nil {
		return nil, ipamProblem(err)
	}
	for _, id := range gone {
		d.forgetNode(id)
	}
	docs := []api.Reclaimed{}
	for _, res := range results {
		docs = append(docs, api.Reclaimed{
			Peer: res.Dead, Name: d.nameOf(res.Dead), Range: res.Range, GivenTo: res.NewOwner, GivenToName: d.nameOf(res.NewOwner), Addresses: res.Addresses,
		})
	}
	return docs, nil
}

// forgetNode has a node that is gone for good and owns nothing any more be no member.
func (d *Daemon) forgetNode(id peer.ID) {
	d.names.Forget(id)
	for _, r := range d.ipam.Status().Ranges {
		if slices.ContainsFunc(r.Owners, func(o ipam.Owner) bool { return o.ID == id }) {
			return
		}
	}
	if err := d.mesh.Forget(id); err != nil {
		d.log.Warn("forgetting a node that is gone", "peer", id, "err", err)
	}
}

// goneNode returns the ID of a node that is said to be gone, by ID or nickname. One that is alive is refused; where a
// living and a dead node have one nickname the dead one is meant.
func (d *Daemon) goneNode(name string) (peer.ID, error) {
	if id, err := peer.ParseID(name); err == nil {
		if m, known := d.member(id); known && m.State == mesh.StateAlive {
			return peer.ID{}, aliveProblem(m)
		}
		return id, nil
	}
	var found []mesh.Member
	var alive *mesh.Member
	for _, m := range d.mesh.Members() {
		switch {
		case m.Name != name:
		case m.State == mesh.StateAlive:
			alive = &m
		default:
			found = append(found, m)
		}
	}
	switch {
	case len(found) == 1:
		return found[0].ID, nil
	case len(found) > 1:
		return peer.ID{}, problem(api.KindInvalid, "Give the ID; \"weft ipam\" and \"weft peers\" show it.", "%d dead nodes are called %q", len(found), name)
	case alive != nil:
		return peer.ID{}, aliveProblem(*alive)
	}
	return peer.ID{}, problem(api.KindNotFound, "Give the ID; \"weft ipam\" shows who owns addresses.", "no node is called %q", name)
}

func aliveProblem(m mesh.Member) error {
	return problem(api.KindRefused, "Run \"weft leave\" there, or stop it first.", "node %s (%s) is alive", m.Name, m.ID)
}

// deadWarning returns what an operator should know of a node that is dead: what it keeps, and how to have that back.
func (d *Daemon) deadWarning(m mesh.Member, members []mesh.Member) string {
	var owned uint64
	for _, r := range d.ipam.Status().Ranges {
		for _, o := range r.Owners {
			if o.ID == m.ID {
				owned += o.Addresses
			}
		}
	}
	text := fmt.Sprintf("Node %s (%s at %s) is dead", m.Name, m.ID, m.Addr)
	mend := "start it again"
	for _, other := range members {
		if isAlive(other) && other.ID != m.ID && (other.Name == m.Name || other.GossipAddr() == m.GossipAddr()) {
			text += fmt.Sprintf(", and %s (%s) has taken its place", other.Name, other.ID)
			mend = ""
		}
	}
	if owned > 0 {
		text += fmt.Sprintf("; it owns %d addresses", owned)
		if mend != "" {
			mend += ", or if it is gone for good "
		}
		mend += fmt.Sprintf("take them: \"weft reclaim %s\"", m.ID)
	}
	if mend == "" {
		return text + "."
	}
	return text + ": " + mend + "."
}

// strangerWarnings returns what an operator should know of owners that are no members: they were not seen since this node
// has started.
func (d *Daemon) strangerWarnings(members []mesh.Member) []string {
	var warnings []string
	for _, r := range d.ipam.Status().Ranges {
		for _, o := range r.Owners {
			if o.Reachable || slices.ContainsFunc(members, func(m mesh.Member) bool { return m.ID == o.ID }) {
				continue
			}
			warnings = append(warnings, fmt.Sprintf("Node %s owns %d addresses of %s and was not seen since this node started: start it again, "+
				"or if it is gone for good take them: \"weft reclaim %s\".", o.ID, o.Addresses, r.CIDR, o.ID))
		}
	}
	return warnings
}

func isAlive(m mesh.Member) bool { return m.State == mesh.StateAlive }
