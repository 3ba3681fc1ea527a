package main

import (
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"

	"weft/internal/hint"
	"weft/internal/kube"
)

// defaultCAFile is where manifests mount the ConfigMap with the CAs.
const defaultCAFile = "/etc/weft-ca/ca.pub"

// clusterOptions are the flags that identify the cluster and this node in it.
type clusterOptions struct {
	node, kubeconfig, apiserver, stateDir string
}

func (o *clusterOptions) addFlags(f *pflag.FlagSet) {
	f.StringVar(&o.node, "node-name", os.Getenv("NODE_NAME"), "name of this node's Node object (default: $NODE_NAME)")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig file for the API server (default: the in-cluster configuration)")
	f.StringVar(&o.apiserver, "apiserver", os.Getenv("WEFT_APISERVER"),
		"https://HOST:PORT of the API server instead of the Service's address, for nodes without kube-proxy (default: $WEFT_APISERVER)")
	f.StringVar(&o.stateDir, "state-dir", "/var/lib/weft", "the daemon's state directory; weft-kube run uses only the folder kube in it")
}

// kubeDir returns the folder of what weft-kube run keeps over reboots. It is apart from the state directory, which has the node's key.
func (o *clusterOptions) kubeDir() string { return filepath.Join(o.stateDir, "kube") }

// clients returns a typed and a dynamic client for the API server.
func (o *clusterOptions) clients() (kubernetes.Interface, dynamic.Interface, error) {
	if o.node == "" {
		return nil, nil, hint.Refuse("--node-name", "Set it, or NODE_NAME from spec.nodeName of the pod.", "it is empty")
	}
	config, err := kube.RESTConfig(o.kubeconfig, o.apiserver, o.kubeDir())
	if err != nil {
		return nil, nil, err
	}
	api, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, nil, err
	}
	dyn, err := dynamic.NewForConfig(config)
	return api, dyn, err
}

// newLog returns a logger to standard error, which also receives the log of the Kubernetes libraries.
func newLog() *slog.Logger {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	klog.SetSlogLogger(log)
	return log
}
