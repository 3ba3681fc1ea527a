package kube

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	listers "k8s.io/client-go/listers/core/v1"
	networklisters "k8s.io/client-go/listers/networking/v1"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/network-policy-api/apis/v1alpha1"

	"weft/internal/ether"
	"weft/internal/kube/policy"
)

// adminKindsPeriod is the time between two queries whether the cluster has the administrator policy kinds, while it lacks one.
const adminKindsPeriod = time.Minute

// cluster is a cache of the cluster's objects, kept up to date by watches. Its methods may be called concurrently.
type cluster struct {
	node    string
	dynamic dynamic.Interface

	factory    informers.SharedInformerFactory
	pods       listers.PodLister
	namespaces listers.NamespaceLister
	nodes      listers.NodeLister
	policies   networklisters.NetworkPolicyLister
	synced     []cache.InformerSynced

	// changed signals a change to an input of policies, nodesChanged a change to a node. Each holds one signal.
	changed, nodesChanged chan struct{}

	mu    sync.Mutex
	admin map[schema.GroupVersionResource]cache.GenericLister // guarded by mu; of the kinds that the cluster has
}

// Administrator policies. Not every cluster has these kinds.
var (
	policyKinds      = schema.GroupVersion(v1alpha1.GroupVersion)
	adminPolicies    = policyKinds.WithResource("adminnetworkpolicies")
	baselinePolicies = policyKinds.WithResource("baselineadminnetworkpolicies")
)

func newCluster(cfg Config) (*cluster, error) {
	c := &cluster{
		node: cfg.Node, dynamic: cfg.Dynamic,
		factory: informers.NewSharedInformerFactoryWithOptions(cfg.API, 0, informers.WithTransform(strip)),
		changed: make(chan struct{}, 1), nodesChanged: make(chan struct{}, 1),
		admin: map[schema.GroupVersionResource]cache.GenericLister{},
	}
	pods, namespaces := c.factory.Core().V1().Pods(), c.factory.Core().V1().Namespaces()
	nodes, policies := c.factory.Core().V1().Nodes(), c.factory.Networking().V1().NetworkPolicies()
	c.pods, c.namespaces, c.nodes, c.policies = pods.Lister(), namespaces.Lister(), nodes.Lister(), policies.Lister()
	for _, w := range []struct {
		informer cache.SharedIndexInformer
		signals  []chan struct{}
	}{
		{pods.Informer(), []chan struct{}{c.changed}},
		{namespaces.Informer(), []chan struct{}{c.changed}},
		{policies.Informer(), []chan struct{}{c.changed}},
		{nodes.Informer(), []chan struct{}{c.changed, c.nodesChanged}},
	} {
		if err := c.signal(w.informer, w.signals...); err != nil {
			return nil, err
		}
		c.synced = append(c.synced, w.informer.HasSynced)
	}
	return c, nil
}

// signal sends a signal to channels at each relevant change of an informer's objects.
func (c *cluster) signal(informer cache.SharedIndexInformer, channels ...chan struct{}) error {
	all := func() {
		for _, ch := range channels {
			notify(ch)
		}
	}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { all() },
		UpdateFunc: func(before, after any) {
			if !same(before, after) {
				all()
			}
		},
		DeleteFunc: func(any) { all() },
	})
	if err != nil {
		return fmt.Errorf("kube: watching: %w", err)
	}
	return nil
}

// same reports whether an update changes nothing that the agent reads. Kubelets update the status of pods and nodes often.
func same(before, after any) bool {
	switch a := after.(type) {
	case *corev1.Pod:
		b, ok := before.(*corev1.Pod)
		return ok && b.Status.Phase == a.Status.Phase && slices.Equal(b.Status.PodIPs, a.Status.PodIPs) && b.Spec.NodeName == a.Spec.NodeName &&
			labels.Equals(b.Labels, a.Labels) && sameGuard(b, a)
	case *corev1.Node:
		b, ok := before.(*corev1.Node)
		return ok && slices.Equal(b.Status.Addresses, a.Status.Addresses) && labels.Equals(b.Labels, a.Labels) &&
			b.Annotations[PeerAnnotation] == a.Annotations[PeerAnnotation] && networkUnavailable(b) == networkUnavailable(a)
	}
	return false
}

// strip removes fields that the agent does not read, because thousands of objects may be in memory. It implements
// cache.TransformFunc.
func strip(object any) (any, error) {
	if o, ok := object.(metav1.Object); ok {
		o.SetManagedFields(nil)
	}
	switch o := object.(type) {
	case *corev1.Pod:
		slim := &corev1.Pod{ObjectMeta: o.ObjectMeta}
		slim.Annotations = nil
		for _, key := range []string{corev1.MirrorPodAnnotationKey, GuardAnnotation, AllowAnnotation} {
			if value, ok := o.Annotations[key]; ok {
				if slim.Annotations == nil {
					slim.Annotations = map[string]string{}
				}
				slim.Annotations[key] = value
			}
		}
		slim.Spec.NodeName, slim.Spec.HostNetwork = o.Spec.NodeName, o.Spec.HostNetwork
		for _, list := range [][]corev1.Container{o.Spec.InitContainers, o.Spec.Containers} {
			for _, container := range list {
				if len(container.Ports) > 0 {
					slim.Spec.Containers = append(slim.Spec.Containers, corev1.Container{Ports: container.Ports})
				}
			}
		}
		slim.Status.Phase, slim.Status.PodIPs = o.Status.Phase, o.Status.PodIPs
		return slim, nil
	case *corev1.Node:
		o.Status.Images = nil
	}
	return object, nil
}

// run watches until ctx ends, and joins the watches.
func (c *cluster) run(ctx context.Context) error {
	c.factory.Start(ctx.Done())
	defer c.factory.Shutdown()
	return every(ctx, adminKindsPeriod, func() { c.watchAdmin(ctx) })
}

// watchAdmin starts to watch the administrator policy kinds that the cluster has and that are not watched yet.
func (c *cluster) watchAdmin(ctx context.Context) {
	for _, resource := range []schema.GroupVersionResource{adminPolicies, baselinePolicies} {
		c.mu.Lock()
		_, watched := c.admin[resource]
		c.mu.Unlock()
		if watched || c.dynamic == nil {
			continue
		}
		if _, err := c.dynamic.Resource(resource).List(ctx, metav1.ListOptions{Limit: 1}); err != nil {
			continue // the cluster lacks the kind, or the API server does not answer
		}
		factory := dynamicinformer.NewDynamicSharedInformerFactory(c.dynamic, 0)
		informer := factory.ForResource(resource)
		if c.signal(informer.Informer(), c.changed) != nil {
			continue
		}
		factory.Start(ctx.Done())
		if !cache.WaitForCacheSync(ctx.Done(), informer.Informer().HasSynced) {
			return
		}
		c.mu.Lock()
		c.admin[resource] = informer.Lister()
		c.mu.Unlock()
		notify(c.changed)
	}
}

// notify sends a signal to a channel that holds one. A signal that is still in the channel covers this one as well.
func notify(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// ready reports whether the first list of each kind is complete.
func (c *cluster) ready() bool {
	for _, synced := range c.synced {
		if !synced() {
			return false
		}
	}
	return true
}

// snapshot returns the input of package policy, and the policies that cannot be read. attached has the addresses of this
// node's pods that the API server may not know yet, ports the names of ports by the address of their pod.
func (c *cluster) snapshot(attached map[podKey]attachment, ports map[netip.Addr]string) (
	_ *policy.Cluster, problems []policy.Problem, err error) {
	out := &policy.Cluster{Namespaces: map[string]policy.Labels{}}
	namespaces, err := c.namespaces.List(labels.Everything())
	if err != nil {
		return nil, nil, fmt.Errorf("kube: %w", err)
	}
	for _, ns := range namespaces {
		out.Namespaces[ns.Name] = ns.Labels
	}
	pods, err := c.pods.List(labels.Everything())
	if err != nil {
		return nil, nil, fmt.Errorf("kube: %w", err)
	}
	out.Pods = c.podsOf(pods, attached)
	for _, p := range out.Pods {
		if p.Local && p.Link == "" {
			p.Link = ports[p.IPs[0]]
		}
	}
	nodes, err := c.nodes.List(labels.Everything())
	if err != nil {
		return nil, nil, fmt.Errorf("kube: %w", err)
	}
	for _, n := range nodes {
		out.Nodes = append(out.Nodes, policy.Node{Labels: n.Labels, IPs: addressesOf(n)})
	}
	if out.Policies, err = c.policies.List(labels.Everything()); err != nil {
		return nil, nil, fmt.Errorf("kube: %w", err)
	}
	var more []policy.Problem
	out.Admin, problems = adminList[v1alpha1.AdminNetworkPolicy](c, adminPolicies)
	out.Baseline, more = adminList[v1alpha1.BaselineAdminNetworkPolicy](c, baselinePolicies)
	return out, append(problems, more...), nil
}

// podsOf returns pods as policies see them, each address with one pod only. An address may belong to a new pod while the API
// server still shows it at the previous one. A pod that the plugin has attached comes first, then one that is not being
// deleted, then the younger one.
func (c *cluster) podsOf(objects []*corev1.Pod, attached map[podKey]attachment) (pods []*policy.Pod) {
	objects = slices.SortedFunc(slices.Values(objects), func(a, b *corev1.Pod) int {
		_, attachedA := attached[podKey{a.Namespace, a.Name}]
		_, attachedB := attached[podKey{b.Namespace, b.Name}]
		return cmp.Or(
			-compareBool(attachedA, attachedB), compareBool(a.DeletionTimestamp != nil, b.DeletionTimestamp != nil),
			b.CreationTimestamp.Compare(a.CreationTimestamp.Time), strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name),
		)
	})
	taken := map[netip.Addr]bool{}
	for _, o := range objects {
		p := c.podOf(o, attached)
		if p == nil {
			continue
		}
		p.IPs = slices.DeleteFunc(slices.Clone(p.IPs), func(ip netip.Addr) bool { return taken[ip] })
		for _, ip := range p.IPs {
			taken[ip] = true
		}
		if len(p.IPs) > 0 {
			pods = append(pods, p)
		}
	}
	return pods
}

// compareBool orders false before true.
func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// podOf returns a pod as policies see it, or nil for a pod without addresses of its own.
func (c *cluster) podOf(p *corev1.Pod, attached map[podKey]attachment) *policy.Pod {
	if p.Spec.HostNetwork || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		return nil
	}
	pod := &policy.Pod{Namespace: p.Namespace, Name: p.Name, Labels: p.Labels, Local: p.Spec.NodeName == c.node}
	for _, ip := range p.Status.PodIPs {
		if addr, err := netip.ParseAddr(ip.IP); err == nil {
			pod.IPs = append(pod.IPs, addr)
		}
	}
	if a, ok := attached[podKey{p.Namespace, p.Name}]; ok && pod.Local && is(p, a.UID) {
		pod.IPs, pod.Link = a.IPs, a.Link
		pod.LinkLocal = linkLocal(a.MAC)
	}
	if len(pod.IPs) == 0 {
		return nil
	}
	if !pod.LinkLocal.IsValid() {
		pod.LinkLocal = linkLocal(ether.FromIP(pod.IPs[0]))
	}
	for _, container := range p.Spec.Containers {
		for _, port := range container.Ports {
			if port.Name != "" {
				pod.Ports = append(pod.Ports, policy.Port{
					Name: port.Name, Protocol: cmp.Or(port.Protocol, corev1.ProtocolTCP), Number: uint16(port.ContainerPort),
				})
			}
		}
	}
	return pod
}

// linkLocal returns the link-local address that follows from a MAC; invalid for the zero MAC.
func linkLocal(mac ether.Addr) netip.Addr {
	if mac.IsZero() {
		return netip.Addr{}
	}
	return mac.LinkLocal()
}

// is reports whether the kubelet may know a pod by the given UID; an empty UID matches all pods. A static pod has another UID
// at the API server, which holds the kubelet's UID in an annotation.
func is(p *corev1.Pod, uid string) bool {
	return uid == "" || string(p.UID) == uid || p.Annotations[corev1.MirrorPodAnnotationKey] == uid
}

// adminList returns the objects of a kind that the cluster may have. An object with unknown fields comes from another release
// of the API. It is left out and is a problem, because its meaning without these fields is unknown.
func adminList[T any](c *cluster, resource schema.GroupVersionResource) (out []*T, problems []policy.Problem) {
	c.mu.Lock()
	lister := c.admin[resource]
	c.mu.Unlock()
	if lister == nil {
		return nil, nil
	}
	objects, _ := lister.List(labels.Everything())
	for _, o := range objects {
		u, ok := o.(*unstructured.Unstructured)
		if !ok {
			continue
		}
		t := new(T)
		if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(u.Object, t, true); err != nil {
			problems = append(problems, policy.Problem{
				Kind: u.GetKind(), Name: u.GetName(), UID: string(u.GetUID()),
				Message: fmt.Sprintf("the object is of another release of the API and is ignored: %v", err),
			})
			continue
		}
		out = append(out, t)
	}
	return out, problems
}

// addressesOf returns a node's internal addresses.
func addressesOf(n *corev1.Node) (out []netip.Addr) {
	for _, a := range n.Status.Addresses {
		if addr, err := netip.ParseAddr(a.Address); err == nil && a.Type == corev1.NodeInternalIP {
			out = append(out, addr)
		}
	}
	return out
}
