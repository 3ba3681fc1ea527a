// Package cluster is a cache of the objects of a Kubernetes cluster that one node needs, kept up to date by watches.
//
//	API server ──list, watch──> objects ──> Changes: what is to be looked at again
//
// It keeps a small part of each object: a node of a large cluster has some ten thousand pods in memory. Finished pods, and those
// without a node, are not even sent by the API server.
package cluster

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	coreinformers "k8s.io/client-go/informers/core/v1"
	networkinformers "k8s.io/client-go/informers/networking/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"weft/internal/kube/policy"
	"weft/internal/signal"
)

// Config is the configuration of a Cluster.
type Config struct {
	API     kubernetes.Interface
	Dynamic dynamic.Interface // for kinds that a cluster may not have; nil: none of them
	// Annotations are those of pods and nodes that are kept.
	Annotations []string
}

// Cluster is a cache of the cluster's objects. Its methods may be called concurrently. Callers must not change objects.
type Cluster struct {
	cfg                               Config
	pods, nodes, namespaces, policies cache.SharedIndexInformer
	nodesChanged                      signal.Chan
	changed                           signal.Chan

	mu      sync.Mutex
	changes Changes              // guarded by mu
	admin   map[kind]cache.Store // guarded by mu; of the kinds that the cluster has
}

// Key names a pod.
type Key struct{ Namespace, Name string }

func (k Key) String() string { return k.Namespace + "/" + k.Name }

// Changes are the objects that have changed.
type Changes struct {
	Pods                        map[Key]bool
	Namespaces, Nodes, Policies bool
}

// New returns a Cluster without objects, which Run fills.
func New(cfg Config) (*Cluster, error) {
	c := &Cluster{
		cfg: cfg, changed: signal.New(), nodesChanged: signal.New(), admin: map[kind]cache.Store{},
		changes: Changes{Pods: map[Key]bool{}},
	}
	// A pod that has ended has no address, and one without a node has none yet.
	const living = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"
	c.pods = coreinformers.NewFilteredPodInformer(cfg.API, metav1.NamespaceAll, 0, cache.Indexers{},
		func(o *metav1.ListOptions) { o.FieldSelector = living })
	c.nodes = coreinformers.NewNodeInformer(cfg.API, 0, cache.Indexers{})
	c.namespaces = coreinformers.NewNamespaceInformer(cfg.API, 0, cache.Indexers{})
	c.policies = networkinformers.NewNetworkPolicyInformer(cfg.API, metav1.NamespaceAll, 0, cache.Indexers{})
	for _, w := range []struct {
		informer cache.SharedIndexInformer
		handler  cache.ResourceEventHandler
	}{
		{c.pods, handler(func(p *Pod) { c.note(func(x *Changes) { x.Pods[Key{p.Namespace, p.Name}] = true }) }, (*Pod).same)},
		{c.nodes, handler(func(*Node) { c.note(func(x *Changes) { x.Nodes = true }); c.nodesChanged.Set() }, (*Node).same)},
		{c.namespaces, handler(func(*namespace) { c.note(func(x *Changes) { x.Namespaces = true }) }, nil)},
		{c.policies, handler(func(*networkingv1.NetworkPolicy) { c.notePolicies() }, nil)},
	} {
		if err := w.informer.SetTransform(strip(cfg.Annotations)); err != nil {
			return nil, fmt.Errorf("kube: watching: %w", err)
		}
		if _, err := w.informer.AddEventHandler(w.handler); err != nil {
			return nil, fmt.Errorf("kube: watching: %w", err)
		}
	}
	return c, nil
}

// handler returns a handler that calls changed for each object that is added, deleted or updated, unless same says that an update changed
// nothing.
func handler[T any](changed func(T), same func(T, T) bool) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(o any) {
			if t, ok := o.(T); ok {
				changed(t)
			}
		},
		UpdateFunc: func(before, after any) {
			b, _ := before.(T)
			if a, ok := after.(T); ok && (same == nil || !same(b, a)) {
				changed(a)
			}
		},
		DeleteFunc: func(o any) {
			if unknown, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = unknown.Obj
			}
			if t, ok := o.(T); ok {
				changed(t)
			}
		},
	}
}

// note records a change.
func (c *Cluster) note(f func(*Changes)) {
	c.mu.Lock()
	f(&c.changes)
	c.mu.Unlock()
	c.changed.Set()
}

func (c *Cluster) notePolicies() { c.note(func(x *Changes) { x.Policies = true }) }

// Touch records pods as changed.
func (c *Cluster) Touch(pods ...Key) {
	c.note(func(x *Changes) {
		for _, p := range pods {
			x.Pods[p] = true
		}
	})
}

// Changed returns the channel of wake-ups at changes, NodesChanged that at changes of nodes. They are never closed.
func (c *Cluster) Changed() <-chan struct{}      { return c.changed.C() }
func (c *Cluster) NodesChanged() <-chan struct{} { return c.nodesChanged.C() }

// Take returns the changes since the last call.
func (c *Cluster) Take() Changes {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.changes
	c.changes = Changes{Pods: map[Key]bool{}}
	return out
}

// adminKindsPeriod is the time between two queries whether the cluster has the kinds of administrator policies, while it lacks one.
const adminKindsPeriod = time.Minute

// Run watches until ctx ends, and joins the watches.
func (c *Cluster) Run(ctx context.Context) error {
	var watches sync.WaitGroup
	defer watches.Wait()
	for _, informer := range []cache.SharedIndexInformer{c.pods, c.nodes, c.namespaces, c.policies} {
		watches.Go(func() { informer.RunWithContext(ctx) })
	}
	tick := time.NewTicker(adminKindsPeriod)
	defer tick.Stop()
	for {
		c.watchAdmin(ctx, &watches)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// Ready reports whether the first list of each kind is complete.
func (c *Cluster) Ready() bool {
	for _, informer := range []cache.SharedIndexInformer{c.pods, c.nodes, c.namespaces, c.policies} {
		if !informer.HasSynced() {
			return false
		}
	}
	return true
}

// Pod returns a pod, nil if there is none.
func (c *Cluster) Pod(k Key) *Pod {
	o, ok, _ := c.pods.GetStore().GetByKey(k.String())
	if !ok {
		return nil
	}
	p, _ := o.(*Pod)
	return p
}

// Pods returns all pods.
func (c *Cluster) Pods() []*Pod { return all[*Pod](c.pods) }

// Nodes returns all nodes.
func (c *Cluster) Nodes() []*Node { return all[*Node](c.nodes) }

// Node returns a node, nil if there is none.
func (c *Cluster) Node(name string) *Node {
	o, ok, _ := c.nodes.GetStore().GetByKey(name)
	if !ok {
		return nil
	}
	n, _ := o.(*Node)
	return n
}

// Namespaces returns the labels of all namespaces, by name.
func (c *Cluster) Namespaces() map[string]policy.Labels {
	out := map[string]policy.Labels{}
	for _, n := range all[*namespace](c.namespaces) {
		out[n.name] = n.labels
	}
	return out
}

// all returns the objects of an informer.
func all[T any](informer cache.SharedIndexInformer) []T {
	list := informer.GetStore().List()
	out := make([]T, 0, len(list))
	for _, o := range list {
		if t, ok := o.(T); ok {
			out = append(out, t)
		}
	}
	return slices.Clip(out)
}
