package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"weft/internal/api"
)

// nodesFile is where the nodes that have been seen are written, in the state directory.
const nodesFile = "kube-nodes.json"

// Times of reclaiming.
const (
	// reclaimGrace is how long a node has to be gone: one that is made again under the same name keeps what it has.
	reclaimGrace = 20 * time.Second
	// reclaimPause is between attempts of one node.
	reclaimPause = 15 * time.Second
	// reclaimTurn is how much later each next node begins, so that two hardly ever do at once. It is no harm if they do: what
	// a node owned is given to one of them by agreement of all.
	reclaimTurn = 5 * time.Second
)

// seenNode is a node that has been in the cluster, by the UID of its object: a node that is deleted and made again under its
// name is another.
type seenNode struct {
	Name string `json:"name"`
	Peer string `json:"peer"` // ID of its daemon
}

// departed finds nodes that have been deleted and has their address space reclaimed once their daemons are dead. Daemons that never
// had a node in the cluster are none of its business.
type departed struct {
	daemon Daemon
	path   string
	log    *slog.Logger

	// owned by the caller of update
	seen  map[string]seenNode
	since map[string]time.Time // when a node was found to be gone
	next  time.Time            // no attempt before
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
		return nil, fmt.Errorf("kube: nodes seen before: %w; remove the file if it is damaged: nodes deleted meanwhile are then for `weft reclaim`", err)
	}
	return d, nil
}

// update compares the nodes that are there with those that were.
func (d *departed) update(ctx context.Context, list []*corev1.Node) {
	if err := d.note(list); err != nil {
		d.log.Warn("remembering the nodes", "err", err)
	}
	gone := d.gone(list, time.Now())
	if len(gone) == 0 || time.Now().Before(d.next) {
		return
	}
	d.next = time.Now().Add(reclaimPause)
	if err := d.reclaim(ctx, gone); err != nil {
		d.log.Warn("reclaiming the address space of deleted nodes", "err", err)
	}
}

// note remembers the nodes that are there.
func (d *departed) note(list []*corev1.Node) error {
	before := maps.Clone(d.seen)
	for _, n := range list {
		if id := n.Annotations[PeerAnnotation]; id != "" {
			d.seen[string(n.UID)] = seenNode{Name: n.Name, Peer: id}
		}
	}
	if maps.Equal(before, d.seen) {
		return nil
	}
	return d.save()
}

func (d *departed) save() error { return replaceJSON(d.path, d.seen) }

// gone returns the nodes that are no more, by UID. One whose daemon is that of a node that is there has only been made again.
func (d *departed) gone(list []*corev1.Node, now time.Time) map[string]seenNode {
	there, peers := map[string]bool{}, map[string]bool{}
	for _, n := range list {
		there[string(n.UID)] = true
		peers[n.Annotations[PeerAnnotation]] = true
	}
	gone := map[string]seenNode{}
	if len(list) == 0 {
		return gone // no cluster is empty that this node is in
	}
	for uid, s := range d.seen {
		if there[uid] || peers[s.Peer] {
			delete(d.since, uid)
			if !there[uid] {
				delete(d.seen, uid)
			}
			continue
		}
		if _, known := d.since[uid]; !known {
			d.since[uid] = now
			d.log.Info("a node has been deleted", "node", s.Name, "uid", uid, "peer", s.Peer)
		}
		gone[uid] = s
	}
	return gone
}

// reclaim has the space of those taken whose daemons are dead; those that have none are forgotten.
func (d *departed) reclaim(ctx context.Context, gone map[string]seenNode) error {
	peers, err := d.daemon.Peers(ctx)
	if err != nil {
		return err
	}
	ipam, err := d.daemon.IPAM(ctx)
	if err != nil {
		return err
	}
	turn := reclaimGrace + time.Duration(rank(peers))*reclaimTurn
	var dead []string
	for uid, s := range gone {
		switch state := stateOf(peers, s.Peer); {
		case state == api.PeerAlive:
			continue // its machine still runs
		case !owns(ipam, s.Peer):
			delete(d.seen, uid)
			delete(d.since, uid)
		case time.Since(d.since[uid]) >= turn:
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
		d.log.Info("the address space of a deleted node has been reclaimed", "peer", r.Peer, "node", r.Name, "range", r.Range, "addresses", r.Addresses, "given_to", r.GivenToName)
	}
	return d.save()
}

// rank returns how many peers that are alive come before this node.
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

// stateOf returns what is known of a peer, empty if nothing.
func stateOf(peers []api.Peer, id string) api.PeerState {
	for _, p := range peers {
		if p.ID.String() == id {
			return p.State
		}
	}
	return ""
}

// owns reports whether a peer has address space.
func owns(ipam api.IPAM, id string) bool {
	for _, r := range ipam.Ranges {
		if slices.ContainsFunc(r.Owners, func(o api.IPAMOwner) bool { return o.ID.String() == id && o.Addresses > 0 }) {
			return true
		}
	}
	return false
}
