package cni

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"

	"weft/internal/api"
	"weft/internal/ether"
)

// Keys of CNI_ARGS in which runtimes of Kubernetes pass the pod of a container.
const (
	argNamespace = "K8S_POD_NAMESPACE"
	argName      = "K8S_POD_NAME"
	argUID       = "K8S_POD_UID"
)

// admit waits until network policies are in force for the addresses and the MAC of a pod, if the configuration names the socket of
// weft-kube, and returns what the annotations of the pod say about its guard. It is called before the interface exists.
func (c *call) admit(ctx context.Context, addresses []netip.Addr, mac ether.Addr) (api.Admitted, error) {
	if c.conf.Policy == "" {
		return api.Admitted{}, nil
	}
	pod := api.Admission{Owner: c.holder.String(), MAC: mac, IPs: addresses}
	for key, to := range map[string]*string{argNamespace: &pod.Namespace, argName: &pod.Name, argUID: &pod.UID} {
		value, err := lookupArg(c.args.Args, key)
		if err != nil {
			return api.Admitted{}, err
		}
		*to = value
	}
	if pod.Namespace == "" || pod.Name == "" {
		return api.Admitted{}, nil // not a pod of Kubernetes: no policy selects it
	}
	admitted, err := c.Dial(c.conf.Policy).Admit(ctx, pod)
	return admitted, policyError(c.conf.Policy, err)
}

// policyError converts an error of weft-kube to one with a code of CNI; nil stays nil.
func policyError(socket string, err error) error {
	if errors.Is(err, api.ErrNoDaemon) {
		return types.NewError(types.ErrTryAgainLater,
			fmt.Sprintf("weft-kube does not answer at %s: the pod's network policies cannot be enforced", socket),
			"hint: try again when weft-kube runs on this node (kubectl -n kube-system get pods -l app=weft -o wide)")
	}
	return daemonError(named(socket), err)
}

// named has the method Socket of a Daemon, for messages.
type named string

func (n named) Socket() string { return string(n) }
