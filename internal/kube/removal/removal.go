// Package removal removes weft from all nodes of a cluster: it deletes the DaemonSet, and runs a pod on each node that cleans its host.
//
//	removal.go  which nodes there are, what each waits for, and the Node objects at the end
//	pod.go      the pod of a node
//
// All addresses are given up at once, so no node hands its own over ("weft leave"): the last ones would find no new owner.
package removal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"weft/internal/hint"
	"weft/internal/kube"
	"weft/internal/plural"
)

// daemonSet is the name of weft's DaemonSet, and the label app of its pods.
const daemonSet = "weft"

// Times of a removal.
const (
	period      = time.Second      // between two looks at the pods
	tidyTimeout = 20 * time.Second // for the deletion of the pods at the end
)

// Config is the configuration of a Removal.
type Config struct {
	API kubernetes.Interface
	// Namespace is that of the DaemonSet, and of the pods that clean hosts. Account is their ServiceAccount; they get no token of it.
	Namespace, Account string
	// Image is the image of weft-kube.
	Image      string
	PullPolicy corev1.PullPolicy
	// Folders on the nodes, as they are in the DaemonSet.
	StateDir, RunDir, BinDir, ConfDir string
	// Owner owns the pods: they end with it. It may be empty.
	Owner []metav1.OwnerReference
	// Timeout is how long all nodes together may take.
	Timeout time.Duration
	Log     *slog.Logger
}

// Removal is one removal. Its Run must be called once.
type Removal struct {
	cfg  Config
	left map[string]string // by node that is not clean yet: what it waits for
}

// New returns a removal that has changed nothing yet. The error is a *hint.Error.
func New(cfg Config) (*Removal, error) {
	if cfg.Image == "" {
		return nil, hint.Refuse("--image", "Name the image of the DaemonSet.", "it is empty")
	}
	return &Removal{cfg: cfg, left: map[string]string{}}, nil
}

// Run removes weft from all nodes. A second run goes on where an earlier one has ended: a node that is clean has lost its annotation. The
// error names the nodes that are not clean when the timeout has passed; it is a *hint.Error.
func (r *Removal) Run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	if err := r.again(ctx, r.find); err != nil {
		return err
	}
	if err := r.again(ctx, r.deleteDaemonSet); err != nil {
		return err
	}
	defer r.tidy(ctx)
	tick := time.NewTicker(period)
	defer tick.Stop()
	for len(r.left) > 0 {
		if err := r.look(ctx); err != nil && ctx.Err() == nil {
			r.cfg.Log.Warn("the API server does not answer, trying again", "err", err)
		}
		if len(r.left) == 0 {
			break
		}
		select {
		case <-ctx.Done():
			return r.unfinished()
		case <-tick.C:
		}
	}
	return nil
}

// again calls f until it returns nil or ctx ends, and then returns its last error: roles that Helm has just made hold a moment later.
func (r *Removal) again(ctx context.Context, f func(context.Context) error) error {
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		err := f(ctx)
		if err == nil {
			return nil
		}
		r.cfg.Log.Warn("the API server refuses, trying again", "err", err)
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// deleteDaemonSet deletes the DaemonSet, if it is there.
func (r *Removal) deleteDaemonSet(ctx context.Context) error {
	background := metav1.DeletePropagationBackground
	err := r.cfg.API.AppsV1().DaemonSets(r.cfg.Namespace).Delete(ctx, daemonSet, metav1.DeleteOptions{PropagationPolicy: &background})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("removal: delete the DaemonSet: %w", err)
	}
	return nil
}

// find finds the nodes that have weft: those with its annotation, and those with one of its pods.
func (r *Removal) find(ctx context.Context) error {
	nodes, err := r.cfg.API.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("removal: list the nodes: %w", err)
	}
	for i := range nodes.Items {
		if _, has := nodes.Items[i].Annotations[kube.PeerAnnotation]; has {
			r.left[nodes.Items[i].Name] = ""
		}
	}
	for _, app := range []string{daemonSet, podLabel} {
		pods, err := r.pods(ctx, app)
		if err != nil {
			return err
		}
		for node := range pods {
			r.left[node] = ""
		}
	}
	r.cfg.Log.Info("removing weft", "nodes", len(r.left))
	return nil
}

// pods returns the pods with a label, by node. Those that no node has are not among them.
func (r *Removal) pods(ctx context.Context, app string) (map[string]*corev1.Pod, error) {
	list, err := r.cfg.API.CoreV1().Pods(r.cfg.Namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=" + app})
	if err != nil {
		return nil, fmt.Errorf("removal: list the pods: %w", err)
	}
	pods := map[string]*corev1.Pod{}
	for i := range list.Items {
		if p := &list.Items[i]; p.Spec.NodeName != "" {
			pods[p.Spec.NodeName] = p
		}
	}
	return pods, nil
}

// look brings each node that is left one step further.
func (r *Removal) look(ctx context.Context) error {
	running, err := r.pods(ctx, daemonSet)
	if err != nil {
		return err
	}
	cleaning, err := r.pods(ctx, podLabel)
	if err != nil {
		return err
	}
	var errs []error
	for _, node := range slices.Sorted(maps.Keys(r.left)) {
		errs = append(errs, r.advance(ctx, node, running[node], cleaning[node]))
	}
	return errors.Join(errs...)
}

// advance brings a node one step further. running is its pod of the DaemonSet, cleaning the pod that cleans its host; nil: there is none.
func (r *Removal) advance(ctx context.Context, node string, running, cleaning *corev1.Pod) error {
	pods := r.cfg.API.CoreV1().Pods(r.cfg.Namespace)
	switch {
	case running != nil:
		r.left[node] = "weft still runs: is the kubelet of the node down?"
	case cleaning == nil:
		r.left[node] = "its pod has not started"
		if _, err := pods.Create(ctx, r.cfg.pod(node), metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			r.left[node] = err.Error()
			return fmt.Errorf("removal: make a pod for node %s: %w", node, err)
		}
	case cleaning.DeletionTimestamp != nil: // of an earlier removal
	case cleaning.Status.Phase == corev1.PodSucceeded:
		if err := r.forget(ctx, node); err != nil {
			return err
		}
		r.cfg.Log.Info("weft has been removed from a node", "node", node, "note", noteOf(cleaning))
		delete(r.left, node)
	case cleaning.Status.Phase == corev1.PodFailed: // it was evicted, or has passed its deadline
		if err := pods.Delete(ctx, cleaning.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("removal: delete the pod of node %s: %w", node, err)
		}
	default:
		if note := noteOf(cleaning); note != "" {
			r.left[node] = note
		}
	}
	return nil
}

// forget removes what weft wrote into the object of a node: the annotation, and the condition unless another network has it by now.
func (r *Removal) forget(ctx context.Context, name string) error {
	node, err := r.cfg.API.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("removal: node %s: %w", name, err)
	}
	patch := map[string]any{"metadata": map[string]any{"annotations": map[string]any{kube.PeerAnnotation: nil, kube.AddressesAnnotation: nil}}}
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeNetworkUnavailable && c.Reason == kube.ConditionReason {
			patch["status"] = map[string]any{"conditions": []map[string]string{{"$patch": "delete", "type": string(c.Type)}}}
		}
	}
	text, err := json.Marshal(patch)
	if err != nil {
		return fmt.Errorf("removal: %w", err)
	}
	if _, err := r.cfg.API.CoreV1().Nodes().PatchStatus(ctx, name, text); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("removal: node %s: %w", name, err)
	}
	return nil
}

// tidy deletes the pods that clean hosts, also after the timeout.
func (r *Removal) tidy(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyTimeout)
	defer cancel()
	cleaning, err := r.pods(ctx, podLabel)
	for _, p := range cleaning {
		if e := r.cfg.API.CoreV1().Pods(r.cfg.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{}); e != nil && !apierrors.IsNotFound(e) {
			err = errors.Join(err, e)
		}
	}
	if err != nil {
		r.cfg.Log.Warn("deleting the pods that clean hosts failed: \"kubectl delete pod -l app="+podLabel+"\" does it", "err", err)
	}
}

// unfinished returns the error about the nodes that are left.
func (r *Removal) unfinished() error {
	var nodes []string
	for _, node := range slices.Sorted(maps.Keys(r.left)) {
		text := node
		if why := r.left[node]; why != "" {
			text += " (" + why + ")"
		}
		nodes = append(nodes, text)
	}
	return hint.New(hint.Timeout, "Run it again once they answer. If a host is gone, delete its Node object.",
		"weft has not been removed from %s after %v: %s", plural.Count(len(nodes), "node"), r.cfg.Timeout, plural.List(nodes))
}
