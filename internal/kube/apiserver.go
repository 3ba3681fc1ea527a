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
	"sync"
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
type endpoints struct {
	path string
	mu   sync.Mutex
	list []string // guarded by mu; host:port
}

// RESTConfig returns how to reach the API server: by kubeconfig if it is not empty, else as a pod does. Server, if it is not
// empty, takes the place of the address. It goes to addresses that were remembered in stateDir where that one does not answer.
func RESTConfig(kubeconfig, server, stateDir string) (*rest.Config, error) {
	if server != "" && kubeconfig == "" {
		// In place of the environment of a pod, from which the rest is taken.
		host, port, err := net.SplitHostPort(trimScheme(server))
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
	e := &endpoints{path: filepath.Join(stateDir, endpointsFile)}
	if text, err := os.ReadFile(e.path); err == nil {
		_ = json.Unmarshal(text, &e.list) // what is damaged is as good as missing
	}
	config.Dial = e.dial
	config.UserAgent = "weft-kube"
	return config, nil
}

func trimScheme(server string) string {
	for _, scheme := range []string{"https://", "http://"} {
		if len(server) > len(scheme) && server[:len(scheme)] == scheme {
			return server[len(scheme):]
		}
	}
	return server
}

// dial connects to addr, or to an address remembered.
func (e *endpoints) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: serviceTimeout, KeepAlive: 15 * time.Second}
	conn, err := d.DialContext(ctx, network, addr)
	if err == nil {
		return conn, nil
	}
	e.mu.Lock()
	list := slices.Clone(e.list)
	e.mu.Unlock()
	for _, other := range list {
		if conn, otherErr := d.DialContext(ctx, network, other); otherErr == nil {
			return conn, nil
		}
	}
	return nil, err
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
	text, err := json.Marshal(list)
	if err != nil {
		return fmt.Errorf("kube: %w", err)
	}
	_, err = replaceFile(filepath.Join(stateDir, endpointsFile), text, 0o600)
	return err
}
