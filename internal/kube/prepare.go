package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"weft/internal/api"
	"weft/internal/hint"
	"weft/internal/identity"
	"weft/internal/kube/bridgenf"
	"weft/internal/masq"
	"weft/internal/statedir"
	"weft/mesh/nodekey"
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
	// ConfigFile is the path of the daemon's configuration file. Its folder is the state directory of the daemon.
	ConfigFile string
	// SecretFile is the path of the secret file. The configuration contains it if the file exists and is not empty.
	SecretFile string
	// Plain: the nodes communicate without encryption. Without it, a node without a secret is refused, and with it one with a secret.
	Plain bool
	// Identities gets the signed identity of the node; nil: it has none.
	Identities *Identities
	// Timeout is how long the API server may take to list the nodes, IdentityTimeout how long a signature may take.
	Timeout, IdentityTimeout time.Duration
	// Ranges are the address ranges of pods. Forwarding is turned on for their address families.
	Ranges []netip.Prefix
	Log    *slog.Logger
}

// configuration is what the daemon's configuration file contains. The keys are flags of "weft up".
type configuration struct {
	InitPeers   int    `yaml:"init-peers"`
	Plain       bool   `yaml:"plain,omitempty"`
	SecretFile  string `yaml:"secret-file,omitempty"`
	WatchSecret bool   `yaml:"watch-secret,omitempty"`
	Identity    string `yaml:"identity,omitempty"`
	IdentityCA  string `yaml:"identity-ca,omitempty"`
}

// Run prepares the node. If the API server does not answer within Timeout, Run keeps the number of nodes of an earlier start, and
// fails only if there is none. It refuses a node that would communicate without encryption unless Plain says so, and then
// changes nothing. It
// waits for the certificate of a node with an identity, up to IdentityTimeout. Errors about secrets and identities are *hint.Error.
func (p Prepare) Run(ctx context.Context) error {
	cfg, err := p.protection()
	if err != nil {
		return err
	}
	is4 := func(r netip.Prefix) bool { return r.Addr().Is4() }
	is6 := func(r netip.Prefix) bool { return r.Addr().Is6() }
	if err := hostSysctls.recordChanges(filepath.Join(filepath.Dir(p.ConfigFile), "kube"), p.Log, func() error {
		if err := masq.EnableForwarding(slices.ContainsFunc(p.Ranges, is4), slices.ContainsFunc(p.Ranges, is6)); err != nil {
			return err
		}
		if err := raiseNeighbors(hostSysctls.net); err != nil {
			p.Log.Warn("the kernel's limits of neighbors stay as they are", "err", err)
		}
		return bridgeNetfilter(bridgenf.Settings)
	}); err != nil {
		return err
	}
	list, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	if cfg.InitPeers, err = p.bootstrapNodes(list); err != nil {
		return err
	}
	if err := p.identify(ctx, time.Now()); err != nil {
		return err
	}
	return p.configure(cfg)
}

// identify gets the identity of a node that has one, and removes what another start has left of one.
func (p Prepare) identify(ctx context.Context, now time.Time) error {
	dir := filepath.Dir(p.ConfigFile)
	if p.Identities == nil {
		return Identities{File: IdentityFile(dir)}.Forget()
	}
	if err := makeStateDir(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(p.Identities.File), 0o700); err != nil {
		return fmt.Errorf("kube: %w", err)
	}
	key, err := nodekey.Load(dir)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, p.IdentityTimeout)
	defer cancel()
	return p.Identities.Ensure(ctx, identity.Request{Public: key.Public, Name: p.Node}, now)
}

// protection returns a configuration that has the secret file, or is plain on purpose.
func (p Prepare) protection() (cfg configuration, err error) {
	text, err := os.ReadFile(p.SecretFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return cfg, fmt.Errorf("kube: secret: %w", err)
	}
	if p.Identities != nil {
		if p.Plain {
			return cfg, hint.Refuse("WEFT_PLAIN", "Remove WEFT_PLAIN, or WEFT_IDENTITIES to leave the traffic plain.",
				"it contradicts WEFT_IDENTITIES")
		}
		if _, err := p.Identities.cas(); err != nil {
			return cfg, err
		}
		cfg = configuration{WatchSecret: true, Identity: p.Identities.File, IdentityCA: p.Identities.CAFile}
	}
	switch secret := len(strings.TrimSpace(string(text))) > 0; {
	case secret && p.Plain:
		return cfg, hint.Refuse("WEFT_PLAIN", "Remove WEFT_PLAIN to encrypt the traffic, or delete the Secret to leave it plain.",
			"it contradicts the Secret in %s", p.SecretFile)
	case secret:
		cfg.SecretFile, cfg.WatchSecret = p.SecretFile, true
		return cfg, nil
	case p.Identities != nil:
		return cfg, nil
	case p.Plain:
		return configuration{Plain: true}, nil
	}
	const remedy = "Create the Secret (weft secret generate | kubectl -n kube-system create secret generic weft " +
		"--from-file=secret=/dev/stdin), or set WEFT_PLAIN=true (Helm: --set plain=true) if all traffic may be read and forged."
	if err := statedir.CheckSealed(filepath.Dir(p.ConfigFile), false, false); err != nil {
		return cfg, hint.Refuse(p.SecretFile, "Restore the Secret with its former content. "+remedy,
			"the Secret is missing or empty, but this node has had one")
	}
	return cfg, hint.Refuse(p.SecretFile, remedy, "the Secret is missing or empty, and nothing says that nodes communicate without encryption")
}

// bootstrapNodes returns how many nodes must meet: those of the cluster, else those of an earlier start.
func (p Prepare) bootstrapNodes(ctx context.Context) (int, error) {
	n, err := p.countNodes(ctx)
	if err == nil {
		return n, nil
	}
	var before configuration
	text, readErr := os.ReadFile(p.ConfigFile)
	if readErr == nil {
		readErr = yaml.Unmarshal(text, &before)
	}
	if readErr != nil || before.InitPeers < 1 {
		return 0, fmt.Errorf("kube: count nodes: %w", err)
	}
	p.Log.Warn("the API server does not answer: this node starts with its previous number of nodes",
		"init_peers", before.InitPeers, "err", err)
	return before.InitPeers, nil
}

// nodesPage is the number of nodes in one answer of the API server. Without pages, the list of all nodes takes 50 MB in a large cluster.
const nodesPage = 500

// countNodes returns how many nodes of the cluster run weft and have a reachable kubelet: at least 1, this node, and at most
// api.MaxInitPeers. It asks the API server until it answers or ctx ends.
func (p Prepare) countNodes(ctx context.Context) (n int, err error) {
	for {
		if n, err = p.countPages(ctx); err == nil {
			return max(n, 1), nil
		}
		p.Log.Info("listing the nodes failed, trying again", "err", err)
		if pause(ctx, installPeriod) != nil {
			return 0, err
		}
	}
}

// countPages reads the nodes page by page, until there are enough.
func (p Prepare) countPages(ctx context.Context) (n int, err error) {
	options := metav1.ListOptions{Limit: nodesPage}
	for {
		list, err := p.API.CoreV1().Nodes().List(ctx, options)
		if err != nil {
			return 0, err
		}
		for i := range list.Items {
			if node := &list.Items[i]; node.Name == p.Node || runsWeft(node.Labels) && !silent(node) {
				n++
			}
		}
		if options.Continue = list.Continue; options.Continue == "" || n >= api.MaxInitPeers {
			return min(n, api.MaxInitPeers), nil
		}
	}
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

// configure writes the daemon's configuration, and makes the state directory remember that the node is protected.
func (p Prepare) configure(cfg configuration) error {
	text, err := yaml.Marshal(cfg)
	if err != nil {
		return fmt.Errorf("kube: %w", err)
	}
	dir := filepath.Dir(p.ConfigFile)
	if err := makeStateDir(dir); err != nil {
		return err
	}
	protectedBy := cmp.Or(cfg.SecretFile, cfg.Identity)
	if protectedBy != "" {
		if err := statedir.MarkSealed(dir, protectedBy); err != nil {
			return err
		}
	}
	changed, err := replaceFile(p.ConfigFile, text, 0o600)
	if changed {
		p.Log.Info("configuration written", "file", p.ConfigFile, "init_peers", cfg.InitPeers, "encrypted", protectedBy != "")
	}
	return err
}

func makeStateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("kube: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil { // the kubelet makes it readable for all users, and it will contain the node's key
		return fmt.Errorf("kube: %w", err)
	}
	return nil
}

// IdentityFile returns the path of the identity file of a node with a state directory. weft-kube run renews it, and has only the
// folder kube.
func IdentityFile(stateDir string) string { return filepath.Join(stateDir, "kube", "identity") }

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

// neighborLimits are the least limits of the kernel's tables of neighbors on a node, in the order in which they are raised. The tables hold
// the neighbors of the host and of all its pods together: with the default, 1,024, a node of 250 pods that know some neighbors each is
// full. A neighbor takes half a kilobyte.
var neighborLimits = []struct {
	name  string
	least int
}{{"gc_thresh3", 65536}, {"gc_thresh2", 32768}, {"gc_thresh1", 8192}}

// raiseNeighbors raises the limits of neighbors that are lower. net is /proc/sys/net. Only the network namespace of the host has them.
func raiseNeighbors(net string) error {
	var errs []error
	for _, family := range []string{"ipv4", "ipv6"} {
		for _, limit := range neighborLimits {
			path := filepath.Join(net, family, "neigh/default", limit.name)
			text, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err == nil {
				var now int
				if now, err = strconv.Atoi(strings.TrimSpace(string(text))); err == nil && now < limit.least {
					err = os.WriteFile(path, []byte(strconv.Itoa(limit.least)), 0)
				}
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("kube: %w", err))
			}
		}
	}
	return errors.Join(errs...)
}
