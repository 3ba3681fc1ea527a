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
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// endpointsFile holds the API servers' own addresses, in the state directory.
const endpointsFile = "apiservers.json"

// serviceTimeout is how long a connection to the Service address may take before the API servers' own addresses are tried.
const serviceTimeout = 2 * time.Second

// endpoints are the API servers' own addresses, for the case that the address of their Service does not work: after a reboot
// kube-proxy may start later than the network of the pods.
type endpoints []string // host:port

// RESTConfig returns the configuration of a client of the API server: from the file kubeconfig if it is not empty, else from
// the pod's environment and service account. If server is not empty and kubeconfig is, it replaces the address. Where that
// address does not answer, the client connects to the addresses that RememberAPIServers wrote to stateDir.
func RESTConfig(kubeconfig, server, stateDir string) (*rest.Config, error) {
	if server != "" && kubeconfig == "" {
		// InClusterConfig reads the address from the environment, and everything else from the service account.
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
		return nil, fmt.Errorf("kube: configure the client of the API server: %w", err)
	}
	var e endpoints
	if text, err := os.ReadFile(filepath.Join(stateDir, endpointsFile)); err == nil {
		_ = json.Unmarshal(text, &e) // a damaged file counts as missing
	}
	config.Dial = e.dial
	config.UserAgent = "weft-kube"
	// Objects are half as large in protobuf, and are read in a tenth of the time. Clients for kinds of extensions use JSON all the same.
	config.ContentType, config.AcceptContentTypes = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf+","+runtime.ContentTypeJSON
	return config, nil
}

// dial connects to addr, or to one of e if addr does not answer. It returns the error for addr if all fail.
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

// rememberPause is the time until RememberAPIServers is retried after a failure.
const rememberPause = time.Minute

// rememberAPIServers calls RememberAPIServers until it succeeds.
func (a *Agent) rememberAPIServers(ctx context.Context) error {
	for RememberAPIServers(ctx, a.cfg.API, a.cfg.StateDir) != nil {
		if err := pause(ctx, rememberPause); err != nil {
			return err
		}
	}
	return nil
}

// RememberAPIServers writes the addresses of the API servers to stateDir, for the next start.
func RememberAPIServers(ctx context.Context, api kubernetes.Interface, stateDir string) error {
	slice, err := api.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault).Get(ctx, "kubernetes", metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("kube: get the addresses of the API servers: %w", err)
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
