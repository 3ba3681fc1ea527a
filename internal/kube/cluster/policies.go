package cluster

import (
	"context"
	"fmt"
	"sync"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
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
	{clusterKind, []string{"v1beta1", "v1alpha2"}, readCluster},
}

// AdminResources returns the resources of administrator policies that a node reads, where the cluster has them.
func AdminResources() (names []string) {
	for _, k := range adminKinds {
		names = append(names, string(k.kind))
	}
	return names
}

// adminVersions are the versions of the kinds.
var adminVersions = []string{"v1alpha1", "v1alpha2", "v1beta1"}

// foreign is an object with fields that this version does not know. It comes from another release of the API.
type foreign struct {
	metav1.ObjectMeta
	kind string
	err  error
	// policy is the object without these fields; nil: their absence would change its meaning.
	policy *v1beta1.ClusterNetworkPolicy
}

// read returns an object as a T, or as foreign.
func read[T any](u *unstructured.Unstructured) any {
	u.SetManagedFields(nil)
	u.SetAnnotations(nil)
	t := new(T)
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(u.Object, t, true); err != nil {
		return &foreign{
			ObjectMeta: metav1.ObjectMeta{Name: u.GetName(), UID: u.GetUID(), ResourceVersion: u.GetResourceVersion()}, kind: u.GetKind(), err: err,
		}
	}
	return t
}

// readCluster returns a ClusterNetworkPolicy. Of one with unknown fields it also returns the rest: the API demands that a rule with a peer
// that is empty for this version fails closed.
func readCluster(u *unstructured.Unstructured) any {
	o := read[v1beta1.ClusterNetworkPolicy](u)
	f, ok := o.(*foreign)
	if !ok {
		return o
	}
	rest := new(v1beta1.ClusterNetworkPolicy)
	if runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, rest) == nil {
		f.policy = rest
	}
	return f
}

// adminWatch is the watch of a kind of administrator policies.
type adminWatch struct {
	version string
	store   cache.Store
	synced  cache.InformerSynced // also of the handler
	stop    context.CancelFunc
}

// Times between two queries whether the cluster has the kinds of administrator policies, and which versions of them: after a success, for
// each thousand nodes begun, and after a failure.
const (
	adminPeriod = time.Minute
	adminRetry  = 2 * time.Second
)

// followAdmin watches the kinds of administrator policies that the cluster has, as it comes to have them, until ctx ends.
func (c *Cluster) followAdmin(ctx context.Context) error {
	if c.cfg.Dynamic == nil {
		return nil
	}
	var watches sync.WaitGroup
	defer watches.Wait()
	for {
		period := adminPeriod * time.Duration(1+len(c.nodes.GetStore().ListKeys())/1000)
		if err := c.lookForAdmin(ctx, &watches); err != nil {
			period = adminRetry
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(period):
		}
	}
}

// lookForAdmin starts a watch of each kind that the cluster has, in the preferred version that it serves, and ends those of others.
func (c *Cluster) lookForAdmin(ctx context.Context, watches *sync.WaitGroup) error {
	served := map[string]map[string]bool{} // resources by version
	for _, version := range adminVersions {
		list, err := c.cfg.API.Discovery().ServerResourcesForGroupVersion(group + "/" + version)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return err
		}
		served[version] = map[string]bool{}
		for _, r := range list.APIResources {
			served[version][r.Name] = true
		}
	}
	for _, k := range adminKinds {
		version := ""
		for _, v := range k.versions {
			if version == "" && served[v][string(k.kind)] {
				version = v
			}
		}
		c.mu.Lock()
		present := c.admin[k.kind]
		c.mu.Unlock()
		if present != nil && present.version == version {
			continue
		}
		var next *adminWatch
		if version != "" {
			var err error
			if next, err = c.watchAdmin(ctx, k.kind, version, k.read, watches); err != nil {
				return err
			}
		}
		if present != nil {
			present.stop()
		}
		c.mu.Lock()
		if c.admin[k.kind] = next; next == nil {
			delete(c.admin, k.kind)
		}
		c.mu.Unlock()
		if present != nil || next != nil {
			c.notePolicies()
		}
	}
	c.mu.Lock()
	c.adminKnown = true
	c.mu.Unlock()
	c.changed.Set()
	return nil
}

// watchAdmin starts the watch of a kind.
func (c *Cluster) watchAdmin(ctx context.Context, k kind, version string, read func(*unstructured.Unstructured) any,
	watches *sync.WaitGroup) (*adminWatch, error) {
	resource := schema.GroupVersionResource{Group: group, Version: version, Resource: string(k)}
	informer := dynamicinformer.NewFilteredDynamicInformer(c.cfg.Dynamic, resource, metav1.NamespaceAll, 0, cache.Indexers{}, nil).Informer()
	if err := informer.SetTransform(func(o any) (any, error) {
		if u, ok := o.(*unstructured.Unstructured); ok {
			return read(u), nil
		}
		return o, nil
	}); err != nil {
		return nil, err
	}
	if err := c.logErrors(string(k), informer); err != nil {
		return nil, err
	}
	registration, err := informer.AddEventHandler(handler(func(any) { c.notePolicies() }, nil))
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	watches.Go(func() {
		informer.RunWithContext(ctx)
	})
	watches.Go(func() { // an empty kind has no event that wakes
		if cache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
			c.notePolicies()
		}
	})
	return &adminWatch{version: version, store: informer.GetStore(), synced: registration.HasSynced, stop: stop}, nil
}

// Policies returns all policies, and those that cannot be read as they are.
func (c *Cluster) Policies() (out policy.Policies, problems []policy.Problem) {
	out.Network = all[*networkingv1.NetworkPolicy](c.policies)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.admin {
		for _, o := range w.store.List() {
			switch o := o.(type) {
			case *v1alpha1.AdminNetworkPolicy:
				out.Admin = append(out.Admin, o)
			case *v1alpha1.BaselineAdminNetworkPolicy:
				out.Baseline = append(out.Baseline, o)
			case *v1beta1.ClusterNetworkPolicy:
				out.Cluster = append(out.Cluster, o)
			case *foreign:
				effect := "and is ignored"
				if o.policy != nil {
					out.Cluster, effect = append(out.Cluster, o.policy), "and its unknown fields are ignored"
				}
				problems = append(problems, policy.Problem{
					Kind: o.kind, Name: o.Name, UID: string(o.UID),
					Message: fmt.Sprintf("the object is of another release of the API %s: %v", effect, o.err),
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
