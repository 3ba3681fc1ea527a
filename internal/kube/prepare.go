package kube

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"weft/internal/api"
	"weft/internal/kube/bridgenf"
	"weft/internal/masq"
)

// Prepare makes a node ready for its daemon: it changes the kernel's settings and writes the daemon's configuration file, which
// contains the number of nodes that must meet before the address range is first divided (--init-peers).
//
// That number is the number of nodes in the cluster when this node is prepared, itself included, but at most
// api.MaxInitPeers. If nodes start one after another, each counts those before it, so no group of later nodes can be
// complete without an earlier node. Nodes without a reachable kubelet are not counted: they may never start.
type Prepare struct {
	API  kubernetes.Interface
	Node string
	// ConfigFile is the path of the daemon's configuration file, in a folder that survives reboots.
	ConfigFile string
	// SecretFile is the path of the secret file. The configuration contains it if the file exists and is not empty.
	SecretFile string
	// Ranges are the address ranges of pods. Forwarding is turned on for their address families.
	Ranges []netip.Prefix
	Log    *slog.Logger
}

// Run prepares the node. If the API server does not answer before ctx ends, Run keeps the configuration file of an earlier
// start, and fails only if there is none.
func (p Prepare) Run(ctx context.Context) error {
	is4 := func(r netip.Prefix) bool { return r.Addr().Is4() }
	is6 := func(r netip.Prefix) bool { return r.Addr().Is6() }
	if err := masq.EnableForwarding(slices.ContainsFunc(p.Ranges, is4), slices.ContainsFunc(p.Ranges, is6)); err != nil {
		return err
	}
	if err := bridgeNetfilter(bridgenf.Settings); err != nil {
		return err
	}
	bootstrap, err := p.countNodes(ctx)
	if err != nil {
		if _, statErr := os.Stat(p.ConfigFile); statErr != nil {
			return fmt.Errorf("kube: count nodes: %w", err)
		}
		p.Log.Warn("the API server does not answer: this node starts with its previous configuration", "err", err)
		return nil
	}
	return p.configure(bootstrap)
}

// countNodes returns how many nodes of the cluster run weft and have a reachable kubelet: at least 1, this node. It asks the
// API server until it answers or ctx ends.
func (p Prepare) countNodes(ctx context.Context) (n int, err error) {
	var list *corev1.NodeList
	for {
		if list, err = p.API.CoreV1().Nodes().List(ctx, metav1.ListOptions{}); err == nil {
			break
		}
		p.Log.Info("listing the nodes failed, trying again", "err", err)
		if pause(ctx, installPeriod) != nil {
			return 0, err
		}
	}
	for i := range list.Items {
		if node := &list.Items[i]; node.Name == p.Node || runsWeft(node) && !silent(node) {
			n++
		}
	}
	return max(n, 1), nil
}

// silent reports whether a node's kubelet has stopped reporting to the API server.
func silent(node *corev1.Node) bool {
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionUnknown
		}
	}
	return false
}

// configure writes the daemon's configuration for a cluster of the given number of nodes.
func (p Prepare) configure(nodes int) error {
	initPeers := min(nodes, api.MaxInitPeers) // the daemon does not start with a larger number
	settings := map[string]any{"init-peers": initPeers}
	if text, err := os.ReadFile(p.SecretFile); err == nil && len(strings.TrimSpace(string(text))) > 0 {
		settings["secret-file"] = p.SecretFile
	} else if err != nil && p.SecretFile != "" && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("kube: secret: %w", err)
	}
	text, err := yaml.Marshal(settings)
	if err != nil {
		return fmt.Errorf("kube: %w", err)
	}
	dir := filepath.Dir(p.ConfigFile)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("kube: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil { // the kubelet makes it readable for all users, and it will contain the node's key
		return fmt.Errorf("kube: %w", err)
	}
	changed, err := replaceFile(p.ConfigFile, text, 0o600)
	if changed {
		p.Log.Info("configuration written", "file", p.ConfigFile, "init_peers", initPeers, "encrypted", settings["secret-file"] != nil)
	}
	return err
}

// bridgeNetfilter makes the kernel pass bridged frames to its firewall. dir is the folder of the settings.
func bridgeNetfilter(dir string) error {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return bridgenf.ErrMissing
	}
	for _, name := range []string{"bridge-nf-call-iptables", "bridge-nf-call-ip6tables"} {
		if err := masq.TurnOn(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}
