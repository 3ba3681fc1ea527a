package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"weft/internal/api"
	"weft/internal/kube/cluster"
)

// PeerAnnotation is the annotation of a node's object that contains the ID of its daemon.
const PeerAnnotation = "weft.network/peer-id"

// AddressesAnnotation is the annotation of a node's object that contains the addresses of its bridge, separated by commas: those from which
// its host network reaches pods of other nodes. Policies count them as addresses of the node.
const AddressesAnnotation = "weft.network/addresses"

// ConditionReason is the reason of the condition NetworkUnavailable that weft sets.
const ConditionReason = "WeftIsUp"

// nodesPeriod is the time between two queries of the daemon's status, to detect a restart and readiness.
const nodesPeriod = 2 * time.Second

// announcePause is how long a change of the node's object may take to come back from the API server.
const announcePause = 10 * time.Second

// nodes sends the addresses of the other nodes to the daemon and the daemon's state to the API server, and reclaims the
// address space of deleted nodes.
type nodes struct {
	cfg      Config
	cluster  *cluster.Cluster
	departed *departed
	log      *slog.Logger

	// owned by run
	targets   []string       // last sent to the daemon
	since     time.Time      // when the daemon that received them started
	advertise netip.AddrPort // its own address at that time: targets are of the same family
	refused   string         // the addresses that the API server refused last
	announced time.Time      // when addresses were last written to the node's object, which comes back later
}

func newNodes(cfg Config, c *cluster.Cluster) (*nodes, error) {
	d, err := openDeparted(cfg)
	if err != nil {
		return nil, err
	}
	return &nodes{cfg: cfg, cluster: c, departed: d, log: cfg.Log}, nil
}

func (n *nodes) run(ctx context.Context) error {
	tick := time.NewTicker(nodesPeriod)
	defer tick.Stop()
	var last time.Time // of an update after a change
	changed := true
	for {
		// A cluster that grows changes all the time: each change of its nodes costs work for all of them.
		if n.cluster.Ready() && (!changed || time.Since(last) >= nodesPeriod) {
			if changed {
				last = time.Now()
			}
			changed = !n.update(ctx, changed)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		case <-n.cluster.NodesChanged():
			changed = true
		}
	}
}

// update compares daemon and API server with the present nodes and corrects both. Without a change of the nodes, it does only what a
// restart of the daemon needs, and what deleted nodes wait for. It reports whether nothing has failed.
func (n *nodes) update(ctx context.Context, changed bool) (ok bool) {
	status, err := n.cfg.Daemon.Status(ctx)
	if err != nil {
		n.log.Debug("the daemon does not answer", "err", err)
		return !changed
	}
	ok = true
	var list []*cluster.Node
	other := !status.Since.Equal(n.since) || status.Advertise != n.advertise
	if changed || other || n.departed.pending() {
		list = n.cluster.Nodes()
	}
	if changed || other {
		if err := n.connect(ctx, list, status); err != nil {
			n.log.Warn("sending the addresses of the nodes to the daemon failed", "err", err)
			ok = false
		}
	}
	if err := n.announce(ctx, status); err != nil {
		n.log.Warn("updating the object of this node failed", "err", err)
	}
	if list != nil {
		n.departed.update(ctx, list)
	}
	return ok
}

// connect makes the other nodes the persistent targets of the daemon. It does nothing if this daemon has them already.
func (n *nodes) connect(ctx context.Context, list []*cluster.Node, status api.Status) error {
	var targets []string
	for _, node := range list {
		if node.Name == n.cfg.Node || !runsWeft(node.Labels) {
			continue
		}
		for _, addr := range node.Internal {
			if addr.Is4() == status.Advertise.Addr().Is4() || !status.Advertise.IsValid() {
				targets = append(targets, targetOf(addr))
				break
			}
		}
	}
	slices.Sort(targets)
	if slices.Equal(targets, n.targets) && status.Since.Equal(n.since) {
		n.advertise = status.Advertise
		return nil
	}
	if err := n.cfg.Daemon.Connect(ctx, targets, true); err != nil {
		return err
	}
	n.targets, n.since, n.advertise = targets, status.Since, status.Advertise
	return nil
}

func targetOf(addr netip.Addr) string {
	if addr.Is6() {
		return "[" + addr.String() + "]"
	}
	return addr.String()
}

// runsWeft reports whether the DaemonSet has a pod on a node: weft runs on Linux only.
func runsWeft(labels map[string]string) bool {
	system := labels[corev1.LabelOSStable]
	return system == "" || system == "linux"
}

// announce writes the ID of the daemon to the node's object, and sets NodeNetworkUnavailable to false once the daemon is
// ready.
func (n *nodes) announce(ctx context.Context, status api.Status) error {
	node := n.cluster.Node(n.cfg.Node)
	if node == nil {
		return nil // not registered yet
	}
	patch := map[string]any{}
	if id := status.ID.String(); node.Annotations[PeerAnnotation] != id {
		patch["metadata"] = map[string]any{"annotations": map[string]string{PeerAnnotation: id}}
	}
	if status.Ready && node.Unavailable != corev1.ConditionFalse {
		now := metav1.Now()
		patch["status"] = map[string]any{"conditions": []corev1.NodeCondition{{
			Type: corev1.NodeNetworkUnavailable, Status: corev1.ConditionFalse, Reason: ConditionReason,
			Message: "weft is running on this node", LastHeartbeatTime: now, LastTransitionTime: now,
		}}}
	}
	if err := n.patch(ctx, patch); err != nil {
		return err
	}
	return n.announceAddresses(ctx, node, status)
}

// announceAddresses writes the addresses of the bridge to the node's object. An API server with an older admission policy refuses them:
// then it does so once.
func (n *nodes) announceAddresses(ctx context.Context, node *cluster.Node, status api.Status) error {
	addrs := addressesOf(status.Exposed)
	if node.Annotations[AddressesAnnotation] == addrs || n.refused == addrs && addrs != "" || time.Since(n.announced) < announcePause {
		return nil
	}
	var value any = addrs
	if addrs == "" {
		value = nil
	}
	err := n.patch(ctx, map[string]any{"metadata": map[string]any{"annotations": map[string]any{AddressesAnnotation: value}}})
	n.announced = time.Now()
	if apierrors.IsForbidden(err) || apierrors.IsInvalid(err) {
		n.refused = addrs
	}
	return err
}

// patch changes the status of this node's object; nothing if the patch is empty.
func (n *nodes) patch(ctx context.Context, patch map[string]any) error {
	if len(patch) == 0 {
		return nil
	}
	text, err := json.Marshal(patch)
	if err != nil {
		return fmt.Errorf("kube: %w", err)
	}
	_, err = n.cfg.API.CoreV1().Nodes().PatchStatus(ctx, n.cfg.Node, text)
	return err
}

// addressesOf returns the addresses of a bridge as the annotation has them.
func addressesOf(exposed []netip.Prefix) string {
	text := make([]string, len(exposed))
	for i, p := range exposed {
		text[i] = p.Addr().String()
	}
	slices.Sort(text)
	return strings.Join(text, ",")
}

// aliases returns the addresses of the bridge of a node.
func aliases(n *cluster.Node) (out []netip.Addr) {
	for text := range strings.SplitSeq(n.Annotations[AddressesAnnotation], ",") {
		if addr, err := netip.ParseAddr(text); err == nil {
			out = append(out, addr)
		}
	}
	return out
}
