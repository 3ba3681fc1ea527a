package main

import (
	"cmp"
	"context"
	"os"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"weft/internal/hint"
	"weft/internal/kube"
	"weft/internal/kube/removal"
	"weft/internal/usage"
)

// removeOptions are the flags of "weft-kube remove".
type removeOptions struct {
	removal.Config
	kubeconfig, apiserver, pullPolicy string
}

func newRemoveCommand() *cobra.Command {
	var o removeOptions
	cmd := &cobra.Command{
		Use:   "remove",
		Short: "Remove weft from all nodes of the cluster, for good",
		Long: "Remove weft from all nodes of the cluster, for good: delete the DaemonSet, run \"weft-kube uninstall --host\" in a pod\n" +
			"on each node that has weft, and remove annotation and condition of weft from the Node objects. Pods lose their\n" +
			"network, so delete them first. The chart runs this command before it is deleted, kubernetes-remove.yaml does it for\n" +
			"the manifest. Run it again if it fails: nodes that are clean are left out.",
		Args: usage.Arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return runRemove(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig file for the API server (default: the in-cluster configuration)")
	f.StringVar(&o.apiserver, "apiserver", os.Getenv("WEFT_APISERVER"),
		"https://HOST:PORT of the API server instead of the Service's address (default: $WEFT_APISERVER)")
	f.StringVar(&o.Namespace, "namespace", cmp.Or(os.Getenv("POD_NAMESPACE"), "kube-system"),
		"namespace of weft (default: $POD_NAMESPACE, if it is set)")
	f.StringVar(&o.Account, "account", "weft-remove", "ServiceAccount of the pods that clean nodes; they get no token")
	f.StringVar(&o.Image, "image", os.Getenv("WEFT_IMAGE"), "image of these pods (default: $WEFT_IMAGE)")
	f.StringVar(&o.pullPolicy, "image-pull-policy", string(corev1.PullNever), "Never, IfNotPresent or Always")
	f.StringVar(&o.StateDir, "state-dir", "/var/lib/weft", "the daemon's state directory on the nodes")
	f.StringVar(&o.RunDir, "run-dir", "/run/weft", "folder of the sockets on the nodes")
	f.StringVar(&o.BinDir, "bin-dir", "/opt/cni/bin", "folder of CNI plugins on the nodes")
	f.StringVar(&o.ConfDir, "conf-dir", "/etc/cni/net.d", "folder of CNI configurations on the nodes")
	f.DurationVar(&o.Timeout, "timeout", 4*time.Minute, "maximum time for all nodes together")
	return cmd
}

func runRemove(ctx context.Context, o removeOptions) error {
	o.Log, o.PullPolicy = newLog(), corev1.PullPolicy(o.pullPolicy)
	switch o.PullPolicy {
	case corev1.PullNever, corev1.PullIfNotPresent, corev1.PullAlways:
	default:
		return hint.Refuse("--image-pull-policy", "Choose Never, IfNotPresent or Always.", "%q is unknown", o.pullPolicy)
	}
	if name, uid := os.Getenv("POD_NAME"), os.Getenv("POD_UID"); name != "" && uid != "" {
		o.Owner = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: name, UID: types.UID(uid)}}
	}
	config, err := kube.RESTConfig(o.kubeconfig, o.apiserver, "")
	if err != nil {
		return err
	}
	config.QPS, config.Burst = 50, 100 // a pod for each node
	if o.API, err = kubernetes.NewForConfig(config); err != nil {
		return err
	}
	r, err := removal.New(o.Config)
	if err != nil {
		return err
	}
	return r.Run(ctx)
}
