package main

import (
	"cmp"
	"context"
	"os"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/kubernetes"

	"weft/internal/kube"
	"weft/internal/kube/signer"
	"weft/internal/usage"
)

// signerOptions are the flags of "weft-kube signer".
type signerOptions struct {
	kubeconfig, apiserver, dir, namespace, account string
	duration                                       time.Duration
}

func newSignerCommand() *cobra.Command {
	var o signerOptions
	cmd := &cobra.Command{
		Use:   "signer",
		Short: "Sign the identities of nodes: CertificateSigningRequests of the signer weft.network/node",
		Long: "Sign the identities of nodes: CertificateSigningRequests of the signer weft.network/node. It approves and signs the\n" +
			"requests that weft's own ServiceAccount makes for the node on which it runs, and denies all others. Its folder has\n" +
			"the files ca.key and ca.pub of \"weft ca init\", optionally the list of revoked nodes (revocations), and names of\n" +
			"nodes that get no certificate (denied).",
		Args: usage.Arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return runSigner(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig file for the API server (default: the in-cluster configuration)")
	f.StringVar(&o.apiserver, "apiserver", os.Getenv("WEFT_APISERVER"),
		"https://HOST:PORT of the API server instead of the Service's address (default: $WEFT_APISERVER)")
	f.StringVar(&o.dir, "dir", "/etc/weft-ca", "folder with the CA")
	f.StringVar(&o.namespace, "namespace", cmp.Or(os.Getenv("POD_NAMESPACE"), "kube-system"),
		"namespace of weft (default: $POD_NAMESPACE, if it is set)")
	f.StringVar(&o.account, "account", "weft", "name of the ServiceAccount that requests identities for its own node")
	f.DurationVar(&o.duration, "duration", signer.DefaultDuration, "validity of certificates, at most 8760h; a request may ask for less, "+
		"at least 1h")
	return cmd
}

func runSigner(ctx context.Context, o signerOptions) error {
	log := newLog()
	config, err := kube.RESTConfig(o.kubeconfig, o.apiserver, "")
	if err != nil {
		return err
	}
	config.QPS, config.Burst = 50, 100 // all nodes of a large cluster may start at once
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	s, err := signer.New(signer.Config{
		API: client, Folder: signer.Folder(o.dir), Namespace: o.namespace, Account: o.account, Duration: o.duration, Log: log,
	})
	if err != nil {
		return err
	}
	log.Info("weft-kube signer started", "namespace", o.namespace, "account", o.account, "duration", o.duration)
	if err := s.Run(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}
