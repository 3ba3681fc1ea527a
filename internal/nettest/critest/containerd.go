// Package critest runs containerd on a host of a lab, and creates pods as a kubelet does, through the Container Runtime
// Interface (CRI).
package critest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"weft/internal/nettest"
)

// startTimeout bounds the time until containerd answers, and the time until it ends.
const startTimeout = 30 * time.Second

// Runtime is a running containerd. Its methods may be called concurrently.
type Runtime struct {
	process *nettest.Process
	conn    *grpc.ClientConn
	client  cri.RuntimeServiceClient
}

// Pod is the sandbox of a pod.
type Pod struct {
	ID string
	// IPs are the addresses that the runtime received from the plugin.
	IPs []string
	// Netns is the path of its network namespace.
	Netns string
}

// config is a configuration for containerd 1.6 and 2.x. It allows for machines without AppArmor, and machines that forbid
// raising limits.
const config = `version = 2
root = "%[1]s/root"
state = "%[1]s/state"
[grpc]
  address = "%[1]s/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "%[2]s"
  disable_apparmor = true
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "%[3]s"
    conf_dir = "%[4]s"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
`

// Start starts a containerd on a host. Its shim and ctr must be in the same folder or in PATH. It runs until Close, or
// until the lab is closed. pluginDir and confDir are the folders of CNI plugins and of their configuration.
func Start(ctx context.Context, h *nettest.Host, containerd, pluginDir, confDir string) (*Runtime, error) {
	dir := filepath.Join(h.Dir(), "containerd")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("critest: %w", err)
	}
	text := fmt.Sprintf(config, dir, image, pluginDir, confDir)
	if err := os.WriteFile(filepath.Join(dir, "config.toml"), []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("critest: %w", err)
	}
	path := "PATH=" + filepath.Dir(containerd) + ":" + os.Getenv("PATH") + ":/usr/sbin:/sbin"
	process, err := h.Start(nettest.ProcessConfig{
		Name: "containerd", Env: []string{path},
		Argv: []string{containerd, "--config", filepath.Join(dir, "config.toml"), "--log-level", "warn"},
	})
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(dir, "containerd.sock")
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("critest: %w", err)
	}
	r := &Runtime{process: process, conn: conn, client: cri.NewRuntimeServiceClient(conn)}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if _, err := r.client.Version(ctx, &cri.VersionRequest{}, grpc.WaitForReady(true)); err != nil {
		return r, fmt.Errorf("critest: containerd: %w: %s", err, process.Logs())
	}
	return r, loadImage(ctx, containerd, socket, dir)
}

func loadImage(ctx context.Context, containerd, socket, dir string) error {
	program, file := filepath.Join(dir, "pause"), filepath.Join(dir, "pause.tar")
	if err := BuildPause(ctx, program); err != nil {
		return err
	}
	if err := writeImage(file, program); err != nil {
		return fmt.Errorf("critest: the pause image: %w", err)
	}
	ctr := filepath.Join(filepath.Dir(containerd), "ctr")
	load := exec.CommandContext(ctx, ctr, "--address", socket, "--namespace", "k8s.io", "images", "import", file)
	if out, err := load.CombinedOutput(); err != nil {
		return fmt.Errorf("critest: importing the pause image: %w: %s", err, out)
	}
	return nil
}

// BuildPause compiles a static program that waits for SIGTERM or SIGINT. The working directory must be in the module.
func BuildPause(ctx context.Context, path string) error {
	build := exec.CommandContext(ctx, "go", "build", "-o", path, "weft/internal/nettest/critest/pause")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("critest: building the pause program: %w: %s", err, out)
	}
	return nil
}

// Close stops containerd. Pods that were not removed keep running.
func (r *Runtime) Close() error {
	_ = r.conn.Close()
	return r.process.Stop(startTimeout)
}

// Logs returns what containerd has logged.
func (r *Runtime) Logs() string { return r.process.Logs() }

// NetworkReady returns why the runtime's network is not ready, or "" if it is ready.
func (r *Runtime) NetworkReady(ctx context.Context) (string, error) {
	s, err := r.client.Status(ctx, &cri.StatusRequest{})
	if err != nil {
		return "", err
	}
	for _, c := range s.GetStatus().GetConditions() {
		if c.GetType() == cri.NetworkReady && !c.GetStatus() {
			return c.GetReason() + ": " + c.GetMessage(), nil
		}
	}
	return "", nil
}

// Run creates a pod; hostPorts maps ports of the host to TCP ports of the pod.
func (r *Runtime) Run(ctx context.Context, name string, hostPorts map[int32]int32) (*Pod, error) {
	c := &cri.PodSandboxConfig{
		Metadata: &cri.PodSandboxMetadata{Name: name, Namespace: "default", Uid: "uid-" + name}, Hostname: name,
		Linux: &cri.LinuxPodSandboxConfig{SecurityContext: &cri.LinuxSandboxSecurityContext{NamespaceOptions: &cri.NamespaceOption{}}},
	}
	for host, container := range hostPorts {
		c.PortMappings = append(c.PortMappings, &cri.PortMapping{HostPort: host, ContainerPort: container})
	}
	made, err := r.client.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: c})
	if err != nil {
		return nil, fmt.Errorf("critest: running pod %s: %w", name, err)
	}
	return r.inspect(ctx, made.GetPodSandboxId())
}

func (r *Runtime) inspect(ctx context.Context, id string) (*Pod, error) {
	s, err := r.client.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: id, Verbose: true})
	if err != nil {
		return nil, fmt.Errorf("critest: pod %s: %w", id, err)
	}
	p := &Pod{ID: id, IPs: []string{s.GetStatus().GetNetwork().GetIp()}}
	for _, ip := range s.GetStatus().GetNetwork().GetAdditionalIps() {
		p.IPs = append(p.IPs, ip.GetIp())
	}
	var info struct {
		RuntimeSpec struct {
			Linux struct {
				Namespaces []struct{ Type, Path string }
			}
		}
	}
	if err := json.Unmarshal([]byte(s.GetInfo()["info"]), &info); err != nil {
		return nil, fmt.Errorf("critest: pod %s: %w", id, err)
	}
	for _, n := range info.RuntimeSpec.Linux.Namespaces {
		if n.Type == "network" {
			p.Netns = strings.Replace(n.Path, "/var/run/", "/run/", 1)
		}
	}
	return p, nil
}

// Stop stops a pod. The kubelet calls Stop and then Remove; the runtime calls the plugin each time.
func (r *Runtime) Stop(ctx context.Context, p *Pod) error {
	_, err := r.client.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: p.ID})
	return err
}

// Remove removes a stopped pod.
func (r *Runtime) Remove(ctx context.Context, p *Pod) error {
	_, err := r.client.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: p.ID})
	return err
}
