// Package cnitest is a container runtime for tests. It calls CNI plugins on a host of a lab through cnitool, a command line
// for libcni. Real runtimes use the same library, which handles configuration lists, capabilities, cached results and
// versions.
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

// SystemPlugins returns the folder of the host's reference plugins, as installed by Debian, Fedora or upstream. Without
// reference plugins it returns the first of these folders.
func SystemPlugins() string {
	folders := []string{"/usr/lib/cni", "/usr/libexec/cni", "/opt/cni/bin"}
	for _, dir := range folders {
		if _, err := os.Stat(filepath.Join(dir, "portmap")); err == nil {
			return dir
		}
	}
	return folders[0]
}

// Programs that Build compiles: the plugin, under the name in network configurations, and the tool.
const (
	plugin = "weft"
	tool   = "cnitool"
)

// Build compiles the plugin, cnitool and reference plugins into dir, which must be on a file system without noexec. The
// working directory must be in the module.
func Build(ctx context.Context, dir string) error {
	for name, pkg := range map[string]string{
		plugin: "weft/cmd/weft-cni",
		tool:   "github.com/containernetworking/cni/cnitool",
		// The version of weft's image; SystemPlugins may be older.
		"reference/portmap":  "github.com/containernetworking/plugins/plugins/meta/portmap",
		"reference/loopback": "github.com/containernetworking/plugins/plugins/main/loopback",
	} {
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", filepath.Join(dir, name), pkg)
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
	lib  string // replaces /var/lib: cached results, state of IPAM plugins
}

// New returns a runtime for a host. bin is the folder that Build compiled into; other plugins are from SystemPlugins.
func New(h *nettest.Host, bin string) (*Runtime, error) {
	r := &Runtime{host: h, bin: bin, conf: filepath.Join(h.Dir(), "net.d"), lib: filepath.Join(h.Dir(), "lib")}
	for _, dir := range []string{r.conf, r.lib} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("cnitest: %w", err)
		}
	}
	return r, nil
}

// Configure adds or replaces the configuration list of a network, in the JSON format of /etc/cni/net.d.
func (r *Runtime) Configure(network, conflist string) error {
	if err := os.WriteFile(filepath.Join(r.conf, network+".conflist"), []byte(conflist), 0o600); err != nil {
		return fmt.Errorf("cnitest: %w", err)
	}
	return nil
}

// Options are parameters of a call beside the configuration. The zero value means defaults.
type Options struct {
	// Ifname is the interface's name; default eth0.
	Ifname string
	// Args is CNI_ARGS, "K=V;K=V".
	Args string
	// Capabilities is the runtimeConfig for the plugins, as JSON.
	Capabilities string
}

// Add attaches the namespace at the path netns to a network and returns the final result of the plugins.
func (r *Runtime) Add(ctx context.Context, network, netns string, o Options) (*types100.Result, error) {
	out, err := r.call(ctx, "add", network, netns, o)
	if err != nil {
		return nil, err
	}
	raw, err := create.CreateFromBytes(out) // in any version of the specification
	if err != nil {
		return nil, fmt.Errorf("cnitest: result: %w in %s", err, out)
	}
	return types100.GetResult(raw)
}

// Check calls the plugins to check an attachment.
func (r *Runtime) Check(ctx context.Context, network, netns string, o Options) error {
	return r.run(ctx, "check", network, netns, o)
}

// Del detaches the namespace from the network.
func (r *Runtime) Del(ctx context.Context, network, netns string, o Options) error {
	return r.run(ctx, "del", network, netns, o)
}

// GC calls the plugins to remove all attachments of the network, because cnitool lists none as valid.
func (r *Runtime) GC(ctx context.Context, network string) error {
	return r.run(ctx, "gc", network, "/none", Options{})
}

// Status asks the plugins whether they are ready.
func (r *Runtime) Status(ctx context.Context, network string) error {
	return r.run(ctx, "status", network, "/none", Options{})
}

// ContainerID returns the container ID that cnitool uses for a namespace.
func ContainerID(netns string) string {
	sum := sha512.Sum512([]byte(netns))
	return fmt.Sprintf("cnitool-%x", sum[:10])
}

func (r *Runtime) run(ctx context.Context, verb, network, netns string, o Options) error {
	_, err := r.call(ctx, verb, network, netns, o)
	return err
}

// call runs cnitool in the host's namespace, with a separate /var/lib, where libcni caches results.
func (r *Runtime) call(ctx context.Context, verb, network, netns string, o Options) ([]byte, error) {
	cmd := r.host.Command(ctx, "unshare", "--mount", "--propagation", "private", "sh", "-c", `mount --bind "$0" /var/lib && exec "$@"`,
		r.lib, filepath.Join(r.bin, tool), verb, network, netns)
	cmd.Env = append(os.Environ(), r.env(o)...)
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		message, _, _ := bytes.Cut(exit.Stderr, []byte("\nUsage:")) // cnitool prints its usage after every error
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

// Exec calls the plugin without libcni and returns its output, decoded from JSON. If the plugin fails, that is the error
// with code, msg and details. env is added to the environment: CNI_COMMAND and so on.
func (r *Runtime) Exec(ctx context.Context, conf string, env ...string) (map[string]any, error) {
	cmd := r.host.Command(ctx, filepath.Join(r.bin, plugin))
	cmd.Env = append(append(os.Environ(), "CNI_PATH="+r.bin), env...)
	cmd.Stdin = strings.NewReader(conf)
	out, err := cmd.Output()
	if _, failed := errors.AsType[*exec.ExitError](err); err != nil && !failed {
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
