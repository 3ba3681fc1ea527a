package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"weft/internal/api"
	"weft/internal/kube/cluster"
)

// nodesFile holds the nodes that have been in the cluster, in the state directory.
const nodesFile = "kube-nodes.json"

// Times of reclaiming.
const (
	// reclaimGrace is how long a node must be deleted first: a node that is created again under its name keeps its address space.
	reclaimGrace = 20 * time.Second
	// reclaimPause is the time between two attempts of this node.
	reclaimPause = 15 * time.Second
	// reclaimStagger is how much later each next node starts, so that two nodes rarely start at once. Simultaneous attempts are
	// safe: all nodes agree on one new owner.
	reclaimStagger = 5 * time.Second
)

// seenNode is a node that has been in the cluster. It is identified by the UID of its object: a node that is deleted and created
// again under its name is another node.
type seenNode struct {
	Name string `json:"name"`
	Peer string `json:"peer"` // ID of its daemon
}

// departed finds deleted nodes and reclaims their address space once their daemons are dead. It ignores daemons that never had
// a node in the cluster.
// See docs/adr/0021-reclaim-by-uid.md.
type departed struct {
	daemon Daemon
	path   string
	log    *slog.Logger

	// owned by the caller of update
	seen  map[string]seenNode
	since map[string]time.Time // when a node was found deleted
	next  time.Time            // earliest time of the next attempt
}

func openDeparted(cfg Config) (*departed, error) {
	d := &departed{
		daemon: cfg.Daemon, path: filepath.Join(cfg.StateDir, nodesFile), log: cfg.Log,
		seen: map[string]seenNode{}, since: map[string]time.Time{},
	}
	text, err := os.ReadFile(d.path)
	if err == nil {
		err = json.Unmarshal(text, &d.seen)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("kube: read %s: %w; if the file is damaged, remove it and run `weft reclaim` for nodes deleted meanwhile",
			d.path, err)
	}
	return d, nil
}

// update records the present nodes and reclaims the address space of deleted ones.
func (d *departed) update(ctx context.Context, list []*cluster.Node) {
	if err := d.record(list); err != nil {
		d.log.Warn("writing the list of nodes failed", "err", err)
	}
	deleted := d.deleted(list, time.Now())
	if len(deleted) == 0 || time.Now().Before(d.next) {
		return
	}
	d.next = time.Now().Add(reclaimPause)
	if err := d.reclaim(ctx, deleted); err != nil {
		d.log.Warn("reclaiming the address space of deleted nodes failed", "err", err)
	}
}

// pending reports whether a deleted node was found that is not dealt with.
func (d *departed) pending() bool { return len(d.since) > 0 }

// record adds the present nodes to seen, and writes the file if that changed anything.
func (d *departed) record(list []*cluster.Node) error {
	changed := false
	for _, n := range list {
		if id := n.Annotations[PeerAnnotation]; id != "" {
			now := seenNode{Name: n.Name, Peer: id}
			changed = changed || d.seen[n.UID] != now
			d.seen[n.UID] = now
		}
	}
	if !changed {
		return nil
	}
	return d.save()
}

func (d *departed) save() error { return replaceJSON(d.path, d.seen) }

// deleted returns the nodes that are not in list, by UID, and records when each was found deleted. A node is not deleted if a
// present node has the same daemon: then its object was created again.
func (d *departed) deleted(list []*cluster.Node, now time.Time) map[string]seenNode {
	present, peers := map[string]bool{}, map[string]bool{}
	for _, n := range list {
		present[n.UID] = true
		peers[n.Annotations[PeerAnnotation]] = true
	}
	deleted := map[string]seenNode{}
	if len(list) == 0 {
		return deleted // the list is not complete: it lacks this node
	}
	for uid, s := range d.seen {
		if present[uid] || peers[s.Peer] {
			delete(d.since, uid)
			if !present[uid] {
				delete(d.seen, uid)
			}
			continue
		}
		if _, known := d.since[uid]; !known {
			d.since[uid] = now
			d.log.Info("a node has been deleted", "node", s.Name, "uid", uid, "peer", s.Peer)
		}
		deleted[uid] = s
	}
	return deleted
}

// reclaim reclaims the address space of deleted nodes with dead daemons, and forgets deleted nodes without address space.
func (d *departed) reclaim(ctx context.Context, deleted map[string]seenNode) error {
	peers, err := d.daemon.Peers(ctx)
	if err != nil {
		return err
	}
	ipam, err := d.daemon.IPAM(ctx)
	if err != nil {
		return err
	}
	wait := reclaimGrace + time.Duration(rank(peers))*reclaimStagger
	var dead []string
	for uid, s := range deleted {
		switch state := stateOf(peers, s.Peer); {
		case state == api.PeerAlive:
			continue // its machine still runs
		case !owns(ipam, s.Peer):
			delete(d.seen, uid)
			delete(d.since, uid)
		case time.Since(d.since[uid]) >= wait:
			dead = append(dead, s.Peer)
		}
	}
	if len(dead) == 0 {
		return d.save()
	}
	slices.Sort(dead)
	results, err := d.daemon.Reclaim(ctx, slices.Compact(dead))
	if err != nil {
		return err
	}
	for _, r := range results {
		d.log.Info("the address space of a deleted node has been reclaimed", "peer", r.Peer, "node", r.Name, "range", r.Range,
			"addresses", r.Addresses, "given_to", r.GivenToName)
	}
	return d.save()
}

// rank returns how many live peers have a lower ID than this node.
func rank(peers []api.Peer) (n int) {
	i := slices.IndexFunc(peers, func(p api.Peer) bool { return p.Self })
	if i < 0 {
		return 0
	}
	for _, p := range peers {
		if p.State == api.PeerAlive && p.ID.Compare(peers[i].ID) < 0 {
			n++
		}
	}
	return n
}

// stateOf returns the state of the peer with an ID, empty if it is unknown.
func stateOf(peers []api.Peer, id string) api.PeerState {
	for _, p := range peers {
		if p.ID.String() == id {
			return p.State
		}
	}
	return ""
}

// owns reports whether the peer with an ID owns address space.
func owns(ipam api.IPAM, id string) bool {
	for _, r := range ipam.Ranges {
		if slices.ContainsFunc(r.Owners, func(o api.IPAMOwner) bool { return o.ID.String() == id && o.Addresses > 0 }) {
			return true
		}
	}
	return false
}
