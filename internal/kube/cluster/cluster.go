// Package cluster is a cache of the objects of a Kubernetes cluster that one node needs, kept up to date by watches.
//
//	API server ──list, watch──> objects ──> Changes: what is to be looked at again
//
// It keeps a small part of each object: a node of a large cluster has some ten thousand pods in memory. Finished pods, and those
// without a node, are not even sent by the API server.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
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
	Log         *slog.Logger
}

// Cluster is a cache of the cluster's objects. Its methods may be called concurrently. Callers must not change objects.
type Cluster struct {
	cfg                               Config
	pods, nodes, namespaces, policies cache.SharedIndexInformer
	synced                            map[string]cache.InformerSynced // by kind: its first list has passed the handler
	nodesChanged                      signal.Chan
	changed                           signal.Chan

	mu      sync.Mutex
	changes Changes // guarded by mu
	// guarded by mu; the kinds of administrator policies that the cluster has. They are known once adminKnown is true.
	admin      map[kind]*adminWatch
	adminKnown bool
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
		cfg: cfg, changed: signal.New(), nodesChanged: signal.New(), admin: map[kind]*adminWatch{}, adminKnown: cfg.Dynamic == nil,
		synced:  map[string]cache.InformerSynced{},
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
		kind     string
		informer cache.SharedIndexInformer
		handler  cache.ResourceEventHandler
	}{
		{"pods", c.pods, handler(func(p *Pod) { c.note(func(x *Changes) { x.Pods[Key{p.Namespace, p.Name}] = true }) }, (*Pod).same)},
		{"nodes", c.nodes, handler(func(*Node) { c.note(func(x *Changes) { x.Nodes = true }); c.nodesChanged.Set() }, (*Node).same)},
		{"namespaces", c.namespaces, handler(func(*namespace) { c.note(func(x *Changes) { x.Namespaces = true }) }, nil)},
		{"networkpolicies", c.policies, handler(func(*networkingv1.NetworkPolicy) { c.notePolicies() }, nil)},
	} {
		if err := errors.Join(w.informer.SetTransform(strip(cfg.Annotations)), c.logErrors(w.kind, w.informer)); err != nil {
			return nil, fmt.Errorf("kube: watching: %w", err)
		}
		registration, err := w.informer.AddEventHandler(w.handler)
		if err != nil {
			return nil, fmt.Errorf("kube: watching: %w", err)
		}
		c.synced[w.kind] = registration.HasSynced
	}
	return c, nil
}

// logErrors makes an informer log why it cannot list or watch; it tries again, after longer and longer pauses.
func (c *Cluster) logErrors(kind string, informer cache.SharedIndexInformer) error {
	return informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
		if errors.Is(err, io.EOF) || apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
			return // watches end now and then, and versions expire
		}
		c.cfg.Log.Warn("the API server does not list or watch", "kind", kind, "err", err)
	})
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

// Changed returns the channel of wake-ups at changes. It is never closed.
func (c *Cluster) Changed() <-chan struct{} { return c.changed.C() }

// NodesChanged returns the channel of wake-ups at changes of nodes. It is never closed.
func (c *Cluster) NodesChanged() <-chan struct{} { return c.nodesChanged.C() }

// Take returns the changes since the last call.
func (c *Cluster) Take() Changes {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.changes
	c.changes = Changes{Pods: map[Key]bool{}}
	return out
}

// Run watches until ctx ends, and joins the watches.
func (c *Cluster) Run(ctx context.Context) error {
	var watches sync.WaitGroup
	defer watches.Wait()
	for _, informer := range []cache.SharedIndexInformer{c.pods, c.nodes, c.namespaces, c.policies} {
		watches.Go(func() { informer.RunWithContext(ctx) })
	}
	watches.Go(func() { // the last kind may have no event that wakes
		all := slices.Collect(maps.Values(c.synced))
		if cache.WaitForCacheSync(ctx.Done(), all...) {
			c.changed.Set()
		}
	})
	watches.Go(func() { _ = c.followAdmin(ctx) })
	<-ctx.Done()
	return ctx.Err()
}

// Missing returns the kinds that are not complete: their first list has not come, or has not been noted in Changes. With none, the
// cache is as the cluster was at some moment.
func (c *Cluster) Missing() (kinds []string) {
	for kind, synced := range c.synced {
		if !synced() {
			kinds = append(kinds, kind)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.adminKnown {
		kinds = append(kinds, "kinds of "+group)
	}
	for kind, w := range c.admin {
		if !w.synced() {
			kinds = append(kinds, string(kind))
		}
	}
	slices.Sort(kinds)
	return kinds
}

// Ready reports whether all kinds are complete.
func (c *Cluster) Ready() bool { return len(c.Missing()) == 0 }

// Pod returns a pod, nil if there is none.
func (c *Cluster) Pod(k Key) *Pod {
	o, ok, _ := c.pods.GetStore().GetByKey(k.String())
	if !ok {
		return nil
	}
	p, _ := o.(*Pod)
	return p
}

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

// HasNamespace reports whether there is a namespace.
func (c *Cluster) HasNamespace(name string) bool {
	_, ok, _ := c.namespaces.GetStore().GetByKey(name)
	return ok
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
