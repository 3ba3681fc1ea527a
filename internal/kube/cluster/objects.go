package cluster

import (
	"cmp"
	"hash/maphash"
	"maps"
	"net/netip"
	"slices"
	"unique"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"weft/internal/kube/policy"
)

// Pod is what a node keeps of a pod. Strings that many pods have are in memory once.
type Pod struct {
	Namespace, Name, UID, Node string
	Labels                     policy.Labels
	Annotations                map[string]string // those of Config.Annotations; nil: none
	IPs                        []netip.Addr
	Ports                      []policy.Port // by name
	Created                    int64         // in seconds since 1970
	Deleting                   bool          // it has a deletion timestamp
	Finished                   bool          // it has ended, and has no address any more
	HostNetwork                bool
	version                    string
}

// GetObjectMeta implements metav1.ObjectMetaAccessor, which caches need.
func (p *Pod) GetObjectMeta() metav1.Object {
	return &metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name, UID: types.UID(p.UID), ResourceVersion: p.version}
}

// Is reports whether the kubelet may know a pod by the given UID; an empty UID matches all pods. A static pod has another UID
// at the API server, which holds the kubelet's UID in an annotation.
func (p *Pod) Is(uid string) bool {
	return uid == "" || p.UID == uid || p.Annotations[corev1.MirrorPodAnnotationKey] == uid
}

// Reference returns a reference to the pod for events.
func (p *Pod) Reference() *corev1.ObjectReference {
	return &corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: types.UID(p.UID)}
}

// same reports whether two versions of a pod differ in nothing that matters. Kubelets update the status of pods often.
func (p *Pod) same(q *Pod) bool {
	return p.UID == q.UID && p.Node == q.Node && p.Deleting == q.Deleting && p.Finished == q.Finished && slices.Equal(p.IPs, q.IPs) &&
		slices.Equal(p.Ports, q.Ports) && maps.Equal(p.Labels, q.Labels) && maps.Equal(p.Annotations, q.Annotations)
}

// newPod returns what is kept of a pod. annotations are those to keep.
func newPod(o *corev1.Pod, annotations []string) *Pod {
	p := &Pod{
		Namespace: intern(o.Namespace), Name: o.Name, UID: string(o.UID), Node: intern(o.Spec.NodeName), version: o.ResourceVersion,
		Created: o.CreationTimestamp.Unix(), Deleting: o.DeletionTimestamp != nil,
		Finished:    o.Status.Phase == corev1.PodSucceeded || o.Status.Phase == corev1.PodFailed,
		HostNetwork: o.Spec.HostNetwork,
	}
	for _, key := range annotations {
		if value, ok := o.Annotations[key]; ok {
			if p.Annotations == nil {
				p.Annotations = map[string]string{}
			}
			p.Annotations[key] = value
		}
	}
	for _, ip := range o.Status.PodIPs {
		if addr, err := netip.ParseAddr(ip.IP); err == nil {
			p.IPs = append(p.IPs, addr.Unmap())
		}
	}
	for _, c := range o.Spec.InitContainers {
		// Others have ended when the pod runs.
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			p.addPorts(c.Ports)
		}
	}
	for _, c := range o.Spec.Containers {
		p.addPorts(c.Ports)
	}
	return p
}

func (p *Pod) addPorts(ports []corev1.ContainerPort) {
	for _, port := range ports {
		if port.Name != "" {
			p.Ports = append(p.Ports, policy.Port{
				Name: intern(port.Name), Protocol: corev1.Protocol(intern(string(cmp.Or(port.Protocol, corev1.ProtocolTCP)))),
				Number: uint16(port.ContainerPort),
			})
		}
	}
}

// Node is what a node keeps of all nodes.
type Node struct {
	Name, UID   string
	Labels      policy.Labels
	Annotations map[string]string // those of Config.Annotations; nil: none
	Internal    []netip.Addr      // internal addresses
	Addresses   []netip.Addr      // all addresses
	// Unavailable is the status of the condition NetworkUnavailable, empty if the node has none.
	Unavailable corev1.ConditionStatus
	version     string
}

// GetObjectMeta implements metav1.ObjectMetaAccessor, which caches need.
func (n *Node) GetObjectMeta() metav1.Object {
	return &metav1.ObjectMeta{Name: n.Name, UID: types.UID(n.UID), ResourceVersion: n.version}
}

func (n *Node) same(m *Node) bool {
	return n.UID == m.UID && n.Unavailable == m.Unavailable && slices.Equal(n.Addresses, m.Addresses) &&
		slices.Equal(n.Internal, m.Internal) && maps.Equal(n.Labels, m.Labels) && maps.Equal(n.Annotations, m.Annotations)
}

func newNode(o *corev1.Node, annotations []string) *Node {
	n := &Node{Name: o.Name, UID: string(o.UID), version: o.ResourceVersion}
	for _, key := range annotations {
		if value, ok := o.Annotations[key]; ok {
			if n.Annotations == nil {
				n.Annotations = map[string]string{}
			}
			n.Annotations[key] = value
		}
	}
	for _, a := range o.Status.Addresses {
		addr, err := netip.ParseAddr(a.Address)
		if err != nil {
			continue // a name
		}
		n.Addresses = append(n.Addresses, addr)
		if a.Type == corev1.NodeInternalIP {
			n.Internal = append(n.Internal, addr)
		}
	}
	for _, c := range o.Status.Conditions {
		if c.Type == corev1.NodeNetworkUnavailable {
			n.Unavailable = c.Status
		}
	}
	return n
}

// namespace is what a node keeps of a namespace.
type namespace struct {
	name, version string
	labels        policy.Labels
}

// GetObjectMeta implements metav1.ObjectMetaAccessor, which caches need.
func (n *namespace) GetObjectMeta() metav1.Object {
	return &metav1.ObjectMeta{Name: n.name, ResourceVersion: n.version}
}

// strip returns the transformation that keeps of an object only what a node needs, because thousands may be in memory. It implements
// cache.TransformFunc, which may get an object that it has transformed already, and must not be called concurrently.
func strip(annotations []string) func(any) (any, error) {
	shared := &sharedLabels{}
	return func(object any) (any, error) {
		switch o := object.(type) {
		case *corev1.Pod:
			p := newPod(o, annotations)
			p.Labels = shared.of(o.Labels)
			return p, nil
		case *corev1.Node:
			n := newNode(o, annotations)
			n.Labels = shared.of(o.Labels)
			return n, nil
		case *corev1.Namespace:
			return &namespace{name: intern(o.Name), version: o.ResourceVersion, labels: shared.of(o.Labels)}, nil
		case *networkingv1.NetworkPolicy:
			o.ManagedFields, o.Annotations = nil, nil
		}
		return object, nil
	}
}

// sharedLabels lets objects with equal labels share a map, such as the pods of a ReplicaSet. The API server lists them one after
// another, so it need not remember many.
type sharedLabels struct {
	recent [256]policy.Labels // by hash
}

var seed = maphash.MakeSeed()

// of returns a map that is equal to labels. The caller must not change it.
func (s *sharedLabels) of(labels map[string]string) policy.Labels {
	if len(labels) == 0 {
		return nil
	}
	var hash uint64
	for k, v := range labels { // in any order
		hash += maphash.String(seed, k) ^ 3*maphash.String(seed, v)
	}
	slot := &s.recent[hash%uint64(len(s.recent))]
	if !maps.Equal(*slot, labels) {
		*slot = internMap(labels)
	}
	return *slot
}

// intern returns a string that is equal to s, and the same for all equal strings.
func intern(s string) string { return unique.Make(s).Value() }

func internMap(m map[string]string) map[string]string {
	out := make(map[string]string, len(m))
	for k, v := range m {
		out[intern(k)] = intern(v)
	}
	return out
}
