package kubernetes

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// spaces is the number of namespaces. teams is the number of values of a label of theirs, apps that of a label of pods.
const (
	spaces = 500
	teams  = 100
	apps   = 10
)

// cluster is a made-up cluster. The first pods are those of the first node. Objects have the size of real ones: owners, volumes, probes,
// conditions.
type cluster struct {
	nodes, pods, policies, local int
	started                      time.Time
}

// madeUp is an object that is made when it is needed.
type madeUp struct {
	key  string
	make func() runtime.Object
}

// objects returns the objects of a resource, by namespace and name as an API server does.
func (c *cluster) objects(name string) (out []madeUp) {
	defer func() { slices.SortFunc(out, func(a, b madeUp) int { return strings.Compare(a.key, b.key) }) }()
	switch name {
	case "pods":
		for i := range c.pods {
			out = append(out, madeUp{podKey(i), func() runtime.Object { return c.pod(i) }})
		}
	case "nodes":
		for i := range c.nodes {
			out = append(out, madeUp{nodeName(i), func() runtime.Object { return c.node(i) }})
		}
	case "namespaces":
		for i := range spaces {
			out = append(out, madeUp{spaceName(i), func() runtime.Object { return c.namespace(i) }})
		}
	case "networkpolicies":
		for i := range c.policies {
			out = append(out, madeUp{policyKey(i), func() runtime.Object { return c.policy(i) }})
		}
	}
	return out
}

func nodeName(i int) string  { return fmt.Sprintf("ip-10-0-%d-%d.region.compute.internal", i>>8, i&255) }
func spaceName(i int) string { return fmt.Sprintf("team-%d-service-%d", i%teams, i) }
func podName(i int) string {
	return fmt.Sprintf("app%d-%08x-%05x", i/spaces%apps, i/spaces%apps*7919, i)
}
func podKey(i int) string     { return spaceName(i%spaces) + "/" + podName(i) }
func policyName(i int) string { return fmt.Sprintf("allow-app%d", i/spaces) }
func policyKey(i int) string  { return spaceName(i%spaces) + "/" + policyName(i) }
func podAddr(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(32 + i>>16), byte(i >> 8), byte(i)})
}

func uid(kind byte, i int) types.UID {
	return types.UID(fmt.Sprintf("%02x000000-0000-4000-8000-%012x", kind, i))
}

func (c *cluster) meta(namespace, name string, kind byte, i int) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: namespace, Name: name, UID: uid(kind, i), ResourceVersion: fmt.Sprint(100 + i%900),
		CreationTimestamp: metav1.NewTime(c.started),
		ManagedFields: []metav1.ManagedFieldsEntry{{
			Manager: "kube-controller-manager", Operation: "Update", APIVersion: "v1", FieldsType: "FieldsV1",
			FieldsV1: metav1.NewFieldsV1(`{"f:metadata":{"f:generateName":{},"f:labels":{".":{},"f:app":{},"f:pod-template-hash":{}},` +
				`"f:ownerReferences":{".":{},"k:{\"uid\":\"1\"}":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"app\"}":{".":{},"f:image":{},` +
				`"f:name":{},"f:ports":{".":{}},"f:resources":{}}},"f:dnsPolicy":{},"f:restartPolicy":{},"f:schedulerName":{}}}`),
		}},
	}
}

func (c *cluster) namespace(i int) *corev1.Namespace {
	n := &corev1.Namespace{ObjectMeta: c.meta("", spaceName(i), 1, i)}
	n.Labels = map[string]string{corev1.LabelMetadataName: n.Name, "team": fmt.Sprint("t", i%teams)}
	return n
}

// nodeOf returns the node of a pod.
func (c *cluster) nodeOf(i int) string {
	if i < c.local {
		return nodeName(0)
	}
	return nodeName(1 + i%(c.nodes-1))
}

// pod returns a running pod.
func (c *cluster) pod(i int) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: c.meta(spaceName(i%spaces), podName(i), 2, i)}
	app := i / spaces % apps
	p.Labels = map[string]string{
		"app": fmt.Sprint("a", app), "pod-template-hash": fmt.Sprintf("%08x", app*7919), "app.kubernetes.io/managed-by": "Helm",
		"app.kubernetes.io/version": "1.27.3",
	}
	p.Annotations = map[string]string{"checksum/config": "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"}
	controller := true
	p.OwnerReferences = []metav1.OwnerReference{{
		APIVersion: "apps/v1", Kind: "ReplicaSet", Name: p.Name[:len(p.Name)-6], UID: uid(5, i/100), Controller: &controller,
	}}
	probe := &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromInt32(8080)}},
		PeriodSeconds: 10, TimeoutSeconds: 1, FailureThreshold: 3, SuccessThreshold: 1,
	}
	one := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("128Mi")}
	p.Spec = corev1.PodSpec{
		NodeName: c.nodeOf(i), ServiceAccountName: "default", SchedulerName: "default-scheduler", RestartPolicy: corev1.RestartPolicyAlways,
		Containers: []corev1.Container{{
			Name: "app", Image: "registry.example.com/team/service/app:1.27.3", ImagePullPolicy: corev1.PullIfNotPresent,
			Ports:     []corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}},
			Env:       []corev1.EnvVar{{Name: "LOG_LEVEL", Value: "info"}, {Name: "DATABASE", Value: "postgres://db.example.com:5432/app"}},
			Resources: corev1.ResourceRequirements{Requests: one, Limits: one}, LivenessProbe: probe, ReadinessProbe: probe,
			VolumeMounts: []corev1.VolumeMount{{
				Name: "kube-api-access-" + p.Name[len(p.Name)-5:], ReadOnly: true, MountPath: "/var/run/secrets/kubernetes.io/serviceaccount",
			}},
		}},
		Volumes: []corev1.Volume{{
			Name: "kube-api-access-" + p.Name[len(p.Name)-5:],
			VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}},
				{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"}}},
			}}},
		}},
		Tolerations: []corev1.Toleration{
			{Key: "node.kubernetes.io/not-ready", Operator: "Exists", Effect: "NoExecute"},
			{Key: "node.kubernetes.io/unreachable", Operator: "Exists", Effect: "NoExecute"},
		},
	}
	now := metav1.NewTime(c.started)
	p.Status = corev1.PodStatus{
		Phase: corev1.PodRunning, HostIP: "10.0.0.1", PodIP: podAddr(i).String(), PodIPs: []corev1.PodIP{{IP: podAddr(i).String()}},
		StartTime: &now, QOSClass: corev1.PodQOSGuaranteed,
		ContainerStatuses: []corev1.ContainerStatus{{
			Name: "app", Ready: true, Image: "registry.example.com/team/service/app:1.27.3",
			ImageID:     "registry.example.com/team/service/app@sha256:6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b",
			ContainerID: fmt.Sprintf("containerd://%064x", i), State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
		}},
	}
	for _, t := range []corev1.PodConditionType{"PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"} {
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: t, Status: "True", LastTransitionTime: now})
	}
	return p
}

// node returns a node.
func (c *cluster) node(i int) *corev1.Node {
	n := &corev1.Node{ObjectMeta: c.meta("", nodeName(i), 3, i)}
	n.Labels = map[string]string{
		corev1.LabelOSStable: "linux", corev1.LabelArchStable: "amd64", corev1.LabelHostname: n.Name,
		corev1.LabelInstanceTypeStable: "m6i.2xlarge", corev1.LabelTopologyZone: fmt.Sprint("region-", i%3),
		corev1.LabelTopologyRegion: "region", "node.kubernetes.io/pool": fmt.Sprint("pool-", i%20),
	}
	n.Annotations = map[string]string{
		"weft.network/peer-id": fmt.Sprintf("%016x", i+1), "node.alpha.kubernetes.io/ttl": "300",
		"volumes.kubernetes.io/controller-managed-attach-detach": "true",
	}
	addr := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}).String()
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: addr}, {Type: corev1.NodeHostName, Address: n.Name}}
	capacity := corev1.ResourceList{}
	for _, name := range []corev1.ResourceName{"cpu", "memory", "ephemeral-storage", "pods", "hugepages-2Mi", "hugepages-1Gi"} {
		capacity[name] = resource.MustParse("64Gi")
	}
	n.Status.Capacity, n.Status.Allocatable = capacity, capacity
	now := metav1.NewTime(c.started)
	for _, t := range []corev1.NodeConditionType{"MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable"} {
		n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{
			Type: t, Status: "False", LastHeartbeatTime: now, LastTransitionTime: now, Reason: "KubeletHasNoProblem",
			Message: "kubelet has no problem",
		})
	}
	n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{Type: "Ready", Status: "True", LastHeartbeatTime: now})
	for j := range 40 {
		n.Status.Images = append(n.Status.Images, corev1.ContainerImage{SizeBytes: 1 << 27, Names: []string{
			fmt.Sprintf("registry.example.com/team/service-%d@sha256:%064x", j, j), fmt.Sprintf("registry.example.com/team/service-%d:1.27.3", j),
		}})
	}
	return n
}

// policy returns a policy for the pods of one application in one namespace: it allows connections from the next application, from all pods
// of a team, and from a block of addresses, to two ports. One of ten also limits where pods connect to.
func (c *cluster) policy(i int) *networkingv1.NetworkPolicy {
	np := &networkingv1.NetworkPolicy{ObjectMeta: c.meta(spaceName(i%spaces), policyName(i), 4, i)}
	app := i / spaces % apps
	np.Spec.PodSelector.MatchLabels = map[string]string{"app": fmt.Sprint("a", app)}
	np.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
	http, metrics := intstr.FromString("http"), intstr.FromInt32(int32(9000+i%7))
	team := &metav1.LabelSelector{MatchLabels: map[string]string{"team": fmt.Sprint("t", (i*7)%teams)}}
	np.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{
		From: []networkingv1.NetworkPolicyPeer{
			{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": fmt.Sprint("a", (app+1)%apps)}}},
			{NamespaceSelector: team},
			{IPBlock: &networkingv1.IPBlock{CIDR: "192.168.0.0/16", Except: []string{"192.168.7.0/24"}}},
		},
		Ports: []networkingv1.NetworkPolicyPort{{Port: &http}},
	}, {
		From:  []networkingv1.NetworkPolicyPeer{{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"team": "t0"}}}},
		Ports: []networkingv1.NetworkPolicyPort{{Port: &metrics}},
	}}
	if i%10 == 0 {
		dns := intstr.FromInt32(53)
		np.Spec.PolicyTypes = append(np.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
		np.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{
			{To: []networkingv1.NetworkPolicyPeer{{NamespaceSelector: team}}, Ports: []networkingv1.NetworkPolicyPort{{Port: &http}}},
			{Ports: []networkingv1.NetworkPolicyPort{{Port: &dns}}},
		}
	}
	return np
}
