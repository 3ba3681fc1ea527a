package deploy

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// container is a container of the DaemonSet, as far as the tests read it.
type container struct {
	Name, Image, ImagePullPolicy, TerminationMessagePolicy string
	Env                                                    []struct{ Name, Value string }
	Resources                                              struct{ Requests, Limits map[string]string }
	SecurityContext                                        struct {
		Privileged, ReadOnlyRootFilesystem bool
		AllowPrivilegeEscalation           *bool
		Capabilities                       struct{ Add, Drop []string }
	}
	VolumeMounts []struct {
		Name, MountPath string
		ReadOnly        bool
	}
}

// pod is the pod of the DaemonSet, as far as the tests read it.
type pod struct {
	AutomountServiceAccountToken *bool
	SecurityContext              struct {
		RunAsNonRoot   bool
		SeccompProfile struct{ Type string }
	}
	InitContainers, Containers []container
}

// object is an object of the manifest.
type object struct {
	Kind                         string
	AutomountServiceAccountToken *bool
	Rules                        []struct{ APIGroups, Resources, ResourceNames, Verbs []string }
	Spec                         struct {
		FailurePolicy, PolicyName string
		ValidationActions         []string
		Validations               []struct{ Expression, Message string }
		Template                  struct{ Spec pod }
	}
}

// manifest returns the objects of kubernetes.yaml by kind.
func manifest(t *testing.T) map[string]object {
	t.Helper()
	objects := map[string]object{}
	for _, o := range objectsOf(t, "kubernetes.yaml") {
		objects[o.Kind] = o
	}
	return objects
}

// objectsOf returns the objects of a manifest.
func objectsOf(t *testing.T, path string) (objects []object) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range strings.Split(string(text), "\n---\n") {
		// Keys of the manifest begin with a lower-case letter, and yaml compares them with lower-case names of fields.
		var node map[string]any
		if err := yaml.Unmarshal([]byte(part), &node); err != nil {
			t.Fatal(err)
		}
		lower, err := yaml.Marshal(lowerKeys(node))
		if err != nil {
			t.Fatal(err)
		}
		var o object
		if err := yaml.Unmarshal(lower, &o); err != nil {
			t.Fatal(err)
		}
		objects = append(objects, o)
	}
	return objects
}

// lowerKeys returns a document with the keys of all mappings in lower case.
func lowerKeys(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, value := range v {
			out[strings.ToLower(key)] = lowerKeys(value)
		}
		return out
	case []any:
		for i := range v {
			v[i] = lowerKeys(v[i])
		}
	}
	return v
}

// mounts are the volumes of each container. The token of the API is only where the API is used. "kube" reads everything that pods
// and policies say, and has neither the secret nor the state directory with the node's key.
var mounts = map[string][]string{
	"prepare": {"state", "secret", "ca", "token"},
	"weft":    {"state", "run", "tun", "results", "secret", "ca"},
	"kube":    {"kube", "run", "bin", "conf", "ca", "token"},
}

// TestContainersAreClosed: each container has only what it needs, and a limit of memory that Go stays below.
func TestContainersAreClosed(t *testing.T) {
	objects := manifest(t)
	p := objects["DaemonSet"].Spec.Template.Spec
	for _, automount := range []*bool{p.AutomountServiceAccountToken, objects["ServiceAccount"].AutomountServiceAccountToken} {
		if automount == nil || *automount {
			t.Error("the token is mounted in every container")
		}
	}
	if p.SecurityContext.SeccompProfile.Type != "RuntimeDefault" {
		t.Errorf("seccomp %q", p.SecurityContext.SeccompProfile.Type)
	}
	all := append(slices.Clone(p.InitContainers), p.Containers...)
	if len(all) != len(mounts) {
		t.Errorf("%d containers", len(all))
	}
	for _, c := range all {
		var names []string
		for _, m := range c.VolumeMounts {
			names = append(names, m.Name)
			if slices.Contains([]string{"secret", "ca", "token"}, m.Name) && !m.ReadOnly {
				t.Errorf("%s can write %s", c.Name, m.Name)
			}
		}
		if !slices.Equal(names, mounts[c.Name]) {
			t.Errorf("%s has the volumes %v, want %v", c.Name, names, mounts[c.Name])
		}
		s := c.SecurityContext
		if !s.ReadOnlyRootFilesystem || c.TerminationMessagePolicy != "FallbackToLogsOnError" {
			t.Errorf("%s: %+v", c.Name, c)
		}
		if privileged := c.Name == "prepare"; s.Privileged != privileged {
			t.Errorf("%s is privileged: %v", c.Name, s.Privileged)
		} else if !privileged && (s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation ||
			!slices.Equal(s.Capabilities.Drop, []string{"ALL"})) {
			t.Errorf("%s: %+v", c.Name, s)
		}
		if c.Resources.Limits["memory"] == "" || c.Resources.Requests["memory"] == "" ||
			!slices.ContainsFunc(c.Env, func(e struct{ Name, Value string }) bool { return e.Name == "GOMEMLIMIT" }) {
			t.Errorf("%s has no limit of memory: %+v", c.Name, c.Resources)
		}
	}
}

// TestImageHasNoRegistry: nothing pulls the image by a name that the project does not own.
func TestImageHasNoRegistry(t *testing.T) {
	p := manifest(t)["DaemonSet"].Spec.Template.Spec
	for _, c := range append(slices.Clone(p.InitContainers), p.Containers...) {
		if !strings.HasPrefix(c.Image, "localhost/") || c.ImagePullPolicy != "Never" {
			t.Errorf("%s: %s, %s", c.Name, c.Image, c.ImagePullPolicy)
		}
	}
}

// TestPlainIsAskedFor: the manifest as it is encrypts.
func TestPlainIsAskedFor(t *testing.T) {
	for _, e := range manifest(t)["DaemonSet"].Spec.Template.Spec.InitContainers[0].Env {
		if e.Name == "WEFT_PLAIN" && e.Value != "false" {
			t.Errorf("WEFT_PLAIN is %q", e.Value)
		}
	}
}

// TestRules: the token changes nothing but the status of nodes and events, and the policy limits both. What the policy says is
// tested on a cluster (internal/e2e/kubernetes).
func TestRules(t *testing.T) {
	objects := manifest(t)
	for _, r := range objects["ClusterRole"].Rules {
		if slices.Contains(r.Resources, "secrets") || slices.Contains(r.Resources, "*") || slices.Contains(r.Verbs, "*") {
			t.Errorf("%+v", r)
		}
		writes := slices.ContainsFunc(r.Verbs, func(v string) bool { return !slices.Contains([]string{"get", "list", "watch"}, v) })
		if writes && !slices.Equal(r.Resources, []string{"nodes/status"}) && !slices.Equal(r.Resources, []string{"events"}) {
			t.Errorf("the token writes %v", r.Resources)
		}
	}
	policy, binding := objects["ValidatingAdmissionPolicy"].Spec, objects["ValidatingAdmissionPolicyBinding"].Spec
	if policy.FailurePolicy != "Fail" || len(policy.Validations) == 0 || binding.PolicyName != "weft" ||
		!slices.Equal(binding.ValidationActions, []string{"Deny"}) {
		t.Errorf("policy %+v, binding %+v", policy, binding)
	}
}

// TestSignerIsClosed: the signer has no privileges, and may approve and sign for one signer only. The token of a node can only
// request certificates, of that signer.
func TestSignerIsClosed(t *testing.T) {
	writes := map[string]bool{}
	policies := 0
	for _, o := range objectsOf(t, "kubernetes-identities.yaml") {
		for _, r := range o.Rules {
			for _, verb := range r.Verbs {
				writes[strings.Join(r.Resources, "+")+" "+strings.Join(r.ResourceNames, "+")+" "+verb] = true
			}
		}
		if o.Kind == "ValidatingAdmissionPolicy" && o.Spec.FailurePolicy == "Fail" && len(o.Spec.Validations) == 1 &&
			o.Spec.Validations[0].Expression == `object.spec.signerName == "weft.network/node"` {
			policies++
		}
		if o.Kind != "Deployment" {
			continue
		}
		p := o.Spec.Template.Spec
		c := p.Containers[0]
		s := c.SecurityContext
		if !p.SecurityContext.RunAsNonRoot || p.SecurityContext.SeccompProfile.Type != "RuntimeDefault" || s.Privileged ||
			!s.ReadOnlyRootFilesystem || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation ||
			!slices.Equal(s.Capabilities.Drop, []string{"ALL"}) || len(s.Capabilities.Add) > 0 || c.Resources.Limits["memory"] == "" {
			t.Errorf("the signer: %+v", p)
		}
		for _, m := range c.VolumeMounts {
			if !m.ReadOnly {
				t.Errorf("the signer can write %s", m.Name)
			}
		}
	}
	want := []string{
		"certificatesigningrequests  create", "certificatesigningrequests  get", "certificatesigningrequests  list",
		"certificatesigningrequests  watch", "certificatesigningrequests/approval+certificatesigningrequests/status  update",
		"configmaps weft-issued get", "configmaps weft-issued update", "signers weft.network/node approve", "signers weft.network/node sign",
	}
	if got := slices.Sorted(maps.Keys(writes)); !slices.Equal(got, want) || policies != 1 {
		t.Errorf("%d policies, rules:\n%s", policies, strings.Join(got, "\n"))
	}
}
