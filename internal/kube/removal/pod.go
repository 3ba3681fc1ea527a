package removal

import (
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// podLabel is the label app of the pods that clean hosts.
const podLabel = "weft-remove"

// hostRoot is where these pods have the root folder of the host.
const hostRoot = "/host"

// terminationLog is the file that the kubelet publishes when a container has ended (terminationMessagePath).
const terminationLog = "/dev/termination-log"

// podName returns the name of the pod for a node: names of nodes may be as long as those of pods.
func podName(node string) string {
	sum := sha256.Sum256([]byte(node))
	return podLabel + "-" + hex.EncodeToString(sum[:8])
}

// pod returns the pod that cleans a host. It bypasses the scheduler and tolerates everything: the network of the node is going away. It
// is privileged, because it writes /proc/sys and folders of the host, and has no token.
func (c Config) pod(node string) *corev1.Pod {
	onHost := func(path string) string { return filepath.Join(hostRoot, path) }
	yes, no, grace := true, false, int64(5)
	deadline := int64(max(c.Timeout, time.Minute) / time.Second)
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name: podName(node), Namespace: c.Namespace, Labels: map[string]string{"app": podLabel}, OwnerReferences: c.Owner,
	}}
	p.Spec = corev1.PodSpec{
		NodeName: node, RestartPolicy: corev1.RestartPolicyOnFailure, HostNetwork: true, DNSPolicy: corev1.DNSDefault,
		EnableServiceLinks: &no, AutomountServiceAccountToken: &no, ServiceAccountName: c.Account,
		PriorityClassName: "system-node-critical", TerminationGracePeriodSeconds: &grace, ActiveDeadlineSeconds: &deadline,
		Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
		Volumes: []corev1.Volume{{
			Name: "host", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}},
		}},
		Containers: []corev1.Container{{
			Name: "remove", Image: c.Image, ImagePullPolicy: c.PullPolicy,
			Command: []string{
				"weft-kube", "uninstall", "--host", "--bin-dir", onHost(c.BinDir), "--conf-dir", onHost(c.ConfDir),
				"--state-dir", onHost(c.StateDir), "--run-dir", onHost(c.RunDir), "--message-file", terminationLog,
			},
			SecurityContext: &corev1.SecurityContext{Privileged: &yes, ReadOnlyRootFilesystem: &yes},
			Resources: corev1.ResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("20m"), corev1.ResourceMemory: resource.MustParse("32Mi")},
				Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("256Mi")},
			},
			VolumeMounts: []corev1.VolumeMount{{Name: "host", MountPath: hostRoot}},
		}},
	}
	return p
}

// noteOf returns what the container of a pod wrote when it ended last; empty: nothing, or it has not ended.
func noteOf(p *corev1.Pod) string {
	for _, s := range p.Status.ContainerStatuses {
		for _, state := range []corev1.ContainerState{s.State, s.LastTerminationState} {
			if state.Terminated != nil {
				return state.Terminated.Message
			}
			if state.Waiting != nil && s.RestartCount == 0 {
				return state.Waiting.Reason
			}
		}
	}
	return ""
}
