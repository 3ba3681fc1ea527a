package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"weft/internal/api"
)

// PeerAnnotation is the annotation of a node's object that contains the ID of its daemon.
const PeerAnnotation = "weft.network/peer-id"

// nodesPeriod is the time between two queries of the daemon's status, to detect a restart and readiness.
const nodesPeriod = 2 * time.Second

// nodes sends the addresses of the other nodes to the daemon and the daemon's state to the API server, and reclaims the
// address space of deleted nodes.
type nodes struct {
	cfg      Config
	cluster  *cluster
	departed *departed
	log      *slog.Logger

	// owned by run
	targets []string  // last sent to the daemon
	since   time.Time // when the daemon that received them started
}

func newNodes(cfg Config, c *cluster) (*nodes, error) {
	d, err := openDeparted(cfg)
	if err != nil {
		return nil, err
	}
	return &nodes{cfg: cfg, cluster: c, departed: d, log: cfg.Log}, nil
}

func (n *nodes) run(ctx context.Context) error {
	tick := time.NewTicker(nodesPeriod)
	defer tick.Stop()
	for {
		if n.cluster.ready() {
			n.update(ctx)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		case <-n.cluster.nodesChanged:
		}
	}
}

// update compares daemon and API server with the present nodes and corrects both. Failures are retried at the next tick.
func (n *nodes) update(ctx context.Context) {
	list, err := n.cluster.nodes.List(labels.Everything())
	if err != nil {
		return
	}
	status, err := n.cfg.Daemon.Status(ctx)
	if err != nil {
		n.log.Debug("the daemon does not answer", "err", err)
		return
	}
	if err := n.connect(ctx, list, status); err != nil {
		n.log.Warn("sending the addresses of the nodes to the daemon failed", "err", err)
	}
	if err := n.announce(ctx, list, status); err != nil {
		n.log.Warn("updating the object of this node failed", "err", err)
	}
	n.departed.update(ctx, list)
}

// connect makes the other nodes the persistent targets of the daemon. It does nothing if this daemon has them already.
func (n *nodes) connect(ctx context.Context, list []*corev1.Node, status api.Status) error {
	var targets []string
	for _, node := range list {
		if node.Name == n.cfg.Node || !runsWeft(node) {
			continue
		}
		for _, addr := range addressesOf(node) {
			if addr.Is4() == status.Advertise.Addr().Is4() || !status.Advertise.IsValid() {
				targets = append(targets, targetOf(addr))
				break
			}
		}
	}
	slices.Sort(targets)
	if slices.Equal(targets, n.targets) && status.Since.Equal(n.since) {
		return nil
	}
	if err := n.cfg.Daemon.Connect(ctx, targets, true); err != nil {
		return err
	}
	n.targets, n.since = targets, status.Since
	return nil
}

func targetOf(addr netip.Addr) string {
	if addr.Is6() {
		return "[" + addr.String() + "]"
	}
	return addr.String()
}

// runsWeft reports whether the DaemonSet has a pod on a node: weft runs on Linux only.
func runsWeft(node *corev1.Node) bool {
	system := node.Labels[corev1.LabelOSStable]
	return system == "" || system == "linux"
}

// announce writes the ID of the daemon to the node's object, and sets NodeNetworkUnavailable to false once the daemon is
// ready.
func (n *nodes) announce(ctx context.Context, list []*corev1.Node, status api.Status) error {
	i := slices.IndexFunc(list, func(node *corev1.Node) bool { return node.Name == n.cfg.Node })
	if i < 0 {
		return nil // not registered yet
	}
	patch := map[string]any{}
	if list[i].Annotations[PeerAnnotation] != status.ID.String() {
		patch["metadata"] = map[string]any{"annotations": map[string]string{PeerAnnotation: status.ID.String()}}
	}
	if status.Ready && networkUnavailable(list[i]) != corev1.ConditionFalse {
		now := metav1.Now()
		patch["status"] = map[string]any{"conditions": []corev1.NodeCondition{{
			Type: corev1.NodeNetworkUnavailable, Status: corev1.ConditionFalse, Reason: "WeftIsUp",
			Message: "weft is running on this node", LastHeartbeatTime: now, LastTransitionTime: now,
		}}}
	}
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

// networkUnavailable returns the status of a node's condition NodeNetworkUnavailable, empty if it has none.
func networkUnavailable(node *corev1.Node) corev1.ConditionStatus {
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeNetworkUnavailable {
			return c.Status
		}
	}
	return ""
}
