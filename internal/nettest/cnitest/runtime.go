// Package cnitest is a container runtime for tests: it calls CNI plugins on a host of a lab as real runtimes do, by
// cnitool, which is the runtimes' own library (libcni: configuration lists, capabilities, cached results, versions)
// with a command line.
package cnitest

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"

	"weft/internal/nettest"
)

// SystemPlugins returns the folder of the host's reference plugins, where Debian, Fedora or upstream put them; the first
// of these where none has any.
func SystemPlugins() string {
	folders := []string{"/usr/lib/cni", "/usr/libexec/cni", "/opt/cni/bin"}
	for _, dir := range folders {
		if _, err := os.Stat(filepath.Join(dir, "portmap")); err == nil {
			return dir
		}
	}
	return folders[0]
}

// Programs that Build makes: the plugin under the name that network configurations know, and the tool.
const (
	plugin = "weft"
	tool   = "cnitool"
)

// Build compiles the plugin and cnitool into dir, which must be on a file system that allows programs. It must be
// called in a folder of the module.
func Build(ctx context.Context, dir string) error {
	for name, pkg := range map[string]string{
		plugin: "weft/cmd/weft-cni",
		tool:   "github.com/containernetworking/cni/cnitool",
		// In the version that weft's image has; SystemPlugins may be older.
		"reference/portmap":  "github.com/containernetworking/plugins/plugins/meta/portmap",
		"reference/loopback": "github.com/containernetworking/plugins/plugins/main/loopback",
	} {
		cmd := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(dir, name), pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("cnitest: building %s: %w: %s", pkg, err, out)
		}
	}
	return nil
}

// Runtime calls plugins on one host. Its methods may be called concurrently for different namespaces.
type Runtime struct {
	// Constant after New.
	host *nettest.Host
	bin  string
	conf string // folder of network configurations
	lib  string // takes the place of /var/lib: cached results, state of address managers
}

// New returns the runtime of a host. bin is where Build put the programs; other plugins are those of SystemPlugins.
func New(h *nettest.Host, bin string) (*Runtime, error) {
	r := &Runtime{host: h, bin: bin, conf: filepath.Join(h.Dir(), "net.d"), lib: filepath.Join(h.Dir(), "lib")}
	for _, dir := range []string{r.conf, r.lib} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("cnitest: %w", err)
		}
	}
	return r, nil
}

// Configure adds or replaces the configuration list of a network, JSON as in /etc/cni/net.d.
func (r *Runtime) Configure(network, conflist string) error {
	if err := os.WriteFile(filepath.Join(r.conf, network+".conflist"), []byte(conflist), 0o600); err != nil {
		return fmt.Errorf("cnitest: %w", err)
	}
	return nil
}

// Options are what a runtime may say beside the configuration. The zero value says nothing.
type Options struct {
	// Ifname is the interface's name; default eth0.
	Ifname string
	// Args are CNI_ARGS, "K=V;K=V".
	Args string
	// Capabilities are what goes to the plugins as runtimeConfig, JSON.
	Capabilities string
}

// Add joins the namespace at the path netns to a network and returns the final result of the plugins.
func (r *Runtime) Add(ctx context.Context, network, netns string, o Options) (*types100.Result, error) {
	out, err := r.call(ctx, "add", network, netns, o)
	if err != nil {
		return nil, err
	}
	raw, err := create.CreateFromBytes(out) // in whatever version
	if err != nil {
		return nil, fmt.Errorf("cnitest: result: %w in %s", err, out)
	}
	return types100.GetResult(raw)
}

// Check has the plugins check what Add made.
func (r *Runtime) Check(ctx context.Context, network, netns string, o Options) error {
	return r.run(ctx, "check", network, netns, o)
}

// Del takes the namespace out of the network.
func (r *Runtime) Del(ctx context.Context, network, netns string, o Options) error {
	return r.run(ctx, "del", network, netns, o)
}

// GC has the plugins remove every attachment of the network: cnitool lists none as valid.
func (r *Runtime) GC(ctx context.Context, network string) error {
	return r.run(ctx, "gc", network, "/none", Options{})
}

// Status asks the plugins whether they are ready.
func (r *Runtime) Status(ctx context.Context, network string) error {
	return r.run(ctx, "status", network, "/none", Options{})
}

// ContainerID returns the ID that cnitool gives to the container in a namespace.
func ContainerID(netns string) string {
	sum := sha512.Sum512([]byte(netns))
	return fmt.Sprintf("cnitool-%x", sum[:10])
}

func (r *Runtime) run(ctx context.Context, verb, network, netns string, o Options) error {
	_, err := r.call(ctx, verb, network, netns, o)
	return err
}

// call runs cnitool in the host's namespace. It has a /var/lib of its own, where libcni keeps results.
func (r *Runtime) call(ctx context.Context, verb, network, netns string, o Options) ([]byte, error) {
	cmd := r.host.Command(ctx, "unshare", "--mount", "--propagation", "private", "sh", "-c", `mount --bind "$0" /var/lib && exec "$@"`,
		r.lib, filepath.Join(r.bin, tool), verb, network, netns)
	cmd.Env = append(os.Environ(), r.env(o)...)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		message, _, _ := bytes.Cut(exit.Stderr, []byte("\nUsage:")) // which cnitool prints at every error
		return nil, fmt.Errorf("cnitest: %s %s: %s", verb, network, bytes.TrimSpace(message))
	} else if err != nil {
		return nil, fmt.Errorf("cnitest: %w", err)
	}
	return out, nil
}

func (r *Runtime) env(o Options) []string {
	return []string{
		"NETCONFPATH=" + r.conf,
		"CNI_PATH=" + strings.Join([]string{r.bin, SystemPlugins()}, string(filepath.ListSeparator)),
		"CNI_IFNAME=" + o.Ifname, "CNI_ARGS=" + o.Args, "CAP_ARGS=" + o.Capabilities,
	}
}

// Exec calls the plugin itself, without the library, and returns what it printed as JSON, an error included: code, msg
// and details. env is added to the environment: CNI_COMMAND and so on.
func (r *Runtime) Exec(ctx context.Context, conf string, env ...string) (map[string]any, error) {
	cmd := r.host.Command(ctx, filepath.Join(r.bin, plugin))
	cmd.Env = append(append(os.Environ(), "CNI_PATH="+r.bin), env...)
	cmd.Stdin = strings.NewReader(conf)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return nil, fmt.Errorf("cnitest: %w", err)
	}
	answer := map[string]any{}
	if len(out) > 0 {
		if err := json.Unmarshal(out, &answer); err != nil {
			return nil, fmt.Errorf("cnitest: the plugin's answer: %w in %s", err, out)
		}
	}
	return answer, nil
}
