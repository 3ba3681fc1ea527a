package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// endpointsFile is where the API servers' own addresses are written, in the state directory.
const endpointsFile = "apiservers.json"

// serviceTimeout is how long the address of the Service is tried before those of the API servers themselves.
const serviceTimeout = 2 * time.Second

// endpoints remembers where the API servers are, for times when the address of their Service leads nowhere: after a reboot
// kube-proxy may start later than the network of the pods.
type endpoints []string // host:port

// RESTConfig returns how to reach the API server: by kubeconfig if it is not empty, else as a pod does. Server, if it is not
// empty, takes the place of the address. It goes to addresses that were remembered in stateDir where that one does not answer.
func RESTConfig(kubeconfig, server, stateDir string) (*rest.Config, error) {
	if server != "" && kubeconfig == "" {
		// In place of the environment of a pod, from which the rest is taken.
		host, port, err := net.SplitHostPort(strings.TrimPrefix(strings.TrimPrefix(server, "https://"), "http://"))
		if err != nil {
			return nil, fmt.Errorf("--apiserver: %w: write https://HOST:PORT", err)
		}
		_ = os.Setenv("KUBERNETES_SERVICE_HOST", host)
		_ = os.Setenv("KUBERNETES_SERVICE_PORT", port)
	}
	config, err := rest.InClusterConfig()
	if kubeconfig != "" {
		config, err = clientcmd.BuildConfigFromFlags("", kubeconfig)
	}
	if err != nil {
		return nil, fmt.Errorf("kube: reaching the API server: %w", err)
	}
	var e endpoints
	if text, err := os.ReadFile(filepath.Join(stateDir, endpointsFile)); err == nil {
		_ = json.Unmarshal(text, &e) // what is damaged is as good as missing
	}
	config.Dial = e.dial
	config.UserAgent = "weft-kube"
	return config, nil
}

// dial connects to addr, or to an address remembered.
func (e endpoints) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: serviceTimeout, KeepAlive: 15 * time.Second}
	conn, err := d.DialContext(ctx, network, addr)
	if err == nil {
		return conn, nil
	}
	for _, other := range e {
		if conn, otherErr := d.DialContext(ctx, network, other); otherErr == nil {
			return conn, nil
		}
	}
	return nil, err
}

// rememberPause is how long after a failure the API server is asked again where it is.
const rememberPause = time.Minute

// rememberAPIServers writes down once where the API servers are.
func (a *Agent) rememberAPIServers(ctx context.Context) error {
	for RememberAPIServers(ctx, a.cfg.API, a.cfg.StateDir) != nil {
		if err := pause(ctx, rememberPause); err != nil {
			return err
		}
	}
	return nil
}

// RememberAPIServers writes down where the API servers are, for the next start.
func RememberAPIServers(ctx context.Context, api kubernetes.Interface, stateDir string) error {
	slice, err := api.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault).Get(ctx, "kubernetes", metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("kube: asking for the addresses of the API servers: %w", err)
	}
	var list []string
	for _, endpoint := range slice.Endpoints {
		for _, addr := range endpoint.Addresses {
			for _, port := range slice.Ports {
				if port.Port != nil {
					list = append(list, net.JoinHostPort(addr, strconv.Itoa(int(*port.Port))))
				}
			}
		}
	}
	slices.Sort(list)
	return replaceJSON(filepath.Join(stateDir, endpointsFile), list)
}
