package main

import (
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/pflag"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"

	"weft/internal/kube"
)

// clusterOptions say which node of which cluster this is.
type clusterOptions struct {
	node, kubeconfig, apiserver, stateDir, secretFile string
}

func (o *clusterOptions) addFlags(f *pflag.FlagSet) {
	f.StringVar(&o.node, "node-name", os.Getenv("NODE_NAME"), "name of this node's object (default: $NODE_NAME)")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "how to reach the API server (default: as pods do)")
	f.StringVar(&o.apiserver, "apiserver", os.Getenv("WEFT_APISERVER"), "https://HOST:PORT of the API server in place of the Service's address, for nodes without kube-proxy (default: $WEFT_APISERVER)")
	f.StringVar(&o.stateDir, "state-dir", "/var/lib/weft", "folder that outlives reboots")
	f.StringVar(&o.secretFile, "secret-file", "/etc/weft/secret", "the daemon's secret file, if there is one")
}

// clients returns what talks to the API server.
func (o *clusterOptions) clients() (kubernetes.Interface, dynamic.Interface, error) {
	if o.node == "" {
		return nil, nil, fmt.Errorf("--node-name: it is empty: set NODE_NAME from spec.nodeName")
	}
	config, err := kube.RESTConfig(o.kubeconfig, o.apiserver, o.stateDir)
	if err != nil {
		return nil, nil, err
	}
	api, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, nil, err
	}
	more, err := dynamic.NewForConfig(config)
	return api, more, err
}

// newLog returns the log, which takes what the libraries of Kubernetes say as well.
func newLog() *slog.Logger {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	klog.SetSlogLogger(log)
	return log
}
