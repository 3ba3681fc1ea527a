package cluster

import (
	"context"
	"fmt"
	"sync"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/network-policy-api/apis/v1alpha1"
	"sigs.k8s.io/network-policy-api/apis/v1beta1"

	"weft/internal/kube/policy"
)

// kind is a kind of administrator policies.
type kind string

const (
	adminKind    kind = "adminnetworkpolicies"
	baselineKind kind = "baselineadminnetworkpolicies"
	clusterKind  kind = "clusternetworkpolicies"
)

// group is the API group of administrator policies.
const group = "policy.networking.k8s.io"

// adminKinds are the kinds of administrator policies with the versions that weft reads, the preferred one first. Not every cluster has
// them. Both versions of ClusterNetworkPolicy have the same fields.
var adminKinds = []struct {
	kind
	versions []string
	read     func(*unstructured.Unstructured) any
}{
	{adminKind, []string{"v1alpha1"}, read[v1alpha1.AdminNetworkPolicy]},
	{baselineKind, []string{"v1alpha1"}, read[v1alpha1.BaselineAdminNetworkPolicy]},
	{clusterKind, []string{"v1beta1", "v1alpha2"}, read[v1beta1.ClusterNetworkPolicy]},
}

// unreadable is an object with unknown fields. It comes from another release of the API, and its meaning without these fields is
// unknown.
type unreadable struct {
	metav1.ObjectMeta
	kind string
	err  error
}

// read returns an object as a T, or as unreadable.
func read[T any](u *unstructured.Unstructured) any {
	u.SetManagedFields(nil)
	u.SetAnnotations(nil)
	t := new(T)
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(u.Object, t, true); err != nil {
		return &unreadable{
			ObjectMeta: metav1.ObjectMeta{Name: u.GetName(), UID: u.GetUID(), ResourceVersion: u.GetResourceVersion()}, kind: u.GetKind(), err: err,
		}
	}
	return t
}

// watchAdmin starts to watch the kinds of administrator policies that the cluster has and that are not watched yet.
func (c *Cluster) watchAdmin(ctx context.Context, watches *sync.WaitGroup) {
	if c.cfg.Dynamic == nil {
		return
	}
	for _, k := range adminKinds {
		c.mu.Lock()
		_, watched := c.admin[k.kind]
		c.mu.Unlock()
		if watched {
			continue
		}
		for _, version := range k.versions {
			resource := schema.GroupVersionResource{Group: group, Version: version, Resource: string(k.kind)}
			if _, err := c.cfg.Dynamic.Resource(resource).List(ctx, metav1.ListOptions{Limit: 1}); err != nil {
				continue // the cluster lacks it, or the API server does not answer
			}
			informer := dynamicinformer.NewFilteredDynamicInformer(c.cfg.Dynamic, resource, metav1.NamespaceAll, 0, cache.Indexers{}, nil).Informer()
			transform := func(o any) (any, error) {
				if u, ok := o.(*unstructured.Unstructured); ok {
					return k.read(u), nil
				}
				return o, nil
			}
			if informer.SetTransform(transform) != nil {
				continue
			}
			if _, err := informer.AddEventHandler(handler(func(any) { c.notePolicies() }, nil)); err != nil {
				continue
			}
			watches.Go(func() { informer.RunWithContext(ctx) })
			if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
				return
			}
			c.mu.Lock()
			c.admin[k.kind] = informer.GetStore()
			c.mu.Unlock()
			c.notePolicies()
			break
		}
	}
}

// Policies returns all policies, and those that cannot be read.
func (c *Cluster) Policies() (out policy.Policies, problems []policy.Problem) {
	out.Network = all[*networkingv1.NetworkPolicy](c.policies)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, store := range c.admin {
		for _, o := range store.List() {
			switch o := o.(type) {
			case *v1alpha1.AdminNetworkPolicy:
				out.Admin = append(out.Admin, o)
			case *v1alpha1.BaselineAdminNetworkPolicy:
				out.Baseline = append(out.Baseline, o)
			case *v1beta1.ClusterNetworkPolicy:
				out.Cluster = append(out.Cluster, o)
			case *unreadable:
				problems = append(problems, policy.Problem{
					Kind: o.kind, Name: o.Name, UID: string(o.UID),
					Message: fmt.Sprintf("the object is of another release of the API and is ignored: %v", o.err),
				})
			}
		}
	}
	return out, problems
}

// VersionOf returns the API version of a kind of policies.
func VersionOf(policyKind string) string {
	switch policyKind {
	case "AdminNetworkPolicy", "BaselineAdminNetworkPolicy":
		return group + "/v1alpha1"
	case "ClusterNetworkPolicy":
		return group + "/v1alpha2"
	}
	return networkingv1.SchemeGroupVersion.String()
}
