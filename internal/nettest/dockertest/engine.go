// Package dockertest runs a Docker Engine on a machine of a lab, with one image, which was made from a static program.
package dockertest

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"weft/internal/nettest"
	"weft/internal/nettest/critest"
)

// Image is the name of the image. Its only program waits until it is stopped.
const Image = "weft.test/pause"

// startTimeout bounds the time until dockerd answers, and the time until it ends.
const startTimeout = 40 * time.Second

// Engine is a Docker Engine on a machine, at its default paths. Its methods may be called concurrently.
type Engine struct {
	m       *nettest.Machine
	process *nettest.Process
}

// Program is the name of the engine.
const Program = "dockerd"

// Start starts an engine on a machine and loads the image. It runs until Close, or until the lab is closed. The working directory must be
// in the module.
func Start(ctx context.Context, m *nettest.Machine) (*Engine, error) {
	e := &Engine{m: m}
	if _, err := m.Run(ctx, "mount", "-t", "cgroup2", "none", "/sys/fs/cgroup"); err != nil {
		return nil, err
	}
	// containerd is a service of its own, as distributions run it: it outlives dockerd.
	config := filepath.Join(m.Dir(), "containerd.toml")
	if err := os.WriteFile(config, []byte(containerdConfig), 0o600); err != nil {
		return nil, fmt.Errorf("dockertest: %w", err)
	}
	argv := []string{"containerd", "--config", config, "--log-level", "warn"}
	if _, err := m.Start(nettest.ProcessConfig{Name: "containerd", Argv: argv}); err != nil {
		return nil, err
	}
	if err := e.Run(ctx); err != nil {
		return e, err
	}
	return e, e.load(ctx)
}

// containerdConfig leaves out what only Kubernetes needs.
const containerdConfig = "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n"

// Run starts dockerd, again after Stop or Kill, and waits until it answers.
func (e *Engine) Run(ctx context.Context) error {
	p, err := e.m.Start(nettest.ProcessConfig{Name: "docker", Argv: []string{
		Program, "--storage-driver", "vfs", "--log-level", "warn", "--containerd", "/run/containerd/containerd.sock",
	}})
	if err != nil {
		return err
	}
	e.process = p
	deadline := time.Now().Add(startTimeout)
	for {
		_, err := e.m.Run(ctx, "docker", "version")
		if err == nil {
			return nil
		}
		select {
		case <-p.Done():
			return fmt.Errorf("dockertest: dockerd has ended: %s", p.Logs())
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("dockertest: %w: %s", err, p.Logs())
		}
	}
}

// load makes the image.
func (e *Engine) load(ctx context.Context) error {
	program, file := filepath.Join(e.m.Dir(), "pause"), filepath.Join(e.m.Dir(), "image.tar")
	if err := critest.BuildPause(ctx, program); err != nil {
		return err
	}
	if err := writeArchive(file, program); err != nil {
		return fmt.Errorf("dockertest: the image: %w", err)
	}
	_, err := e.Docker(ctx, "import", "--change", `ENTRYPOINT ["/pause"]`, file, Image)
	return err
}

// writeArchive writes the file system of the image.
func writeArchive(path, program string) (err error) {
	binary, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := tar.NewWriter(f)
	if err := w.WriteHeader(&tar.Header{Name: "pause", Mode: 0o755, Size: int64(len(binary))}); err != nil {
		return err
	}
	if _, err := w.Write(binary); err != nil {
		return err
	}
	return w.Close()
}

// Docker runs the command docker on the machine and returns what it printed. The error contains it, too.
func (e *Engine) Docker(ctx context.Context, args ...string) (string, error) {
	out, err := e.m.Run(ctx, append([]string{"docker"}, args...)...)
	return strings.TrimSpace(out), err
}

// Container is a running container.
type Container struct {
	ID  string
	Pid int
	// IPs and MACs are those on each network, by its name.
	IPs, MACs map[string]string
}

// Inspect returns a container.
func (e *Engine) Inspect(ctx context.Context, name string) (Container, error) {
	out, err := e.m.Command(ctx, "docker", "inspect", name).Output()
	if err != nil {
		return Container{}, fmt.Errorf("dockertest: inspecting %s: %w", name, err)
	}
	var docs []struct {
		ID              string `json:"Id"`
		State           struct{ Pid int }
		NetworkSettings struct {
			Networks map[string]struct{ IPAddress, MacAddress string }
		}
	}
	if err := json.Unmarshal(out, &docs); err != nil || len(docs) != 1 {
		return Container{}, fmt.Errorf("dockertest: inspecting %s: %w: %s", name, err, out)
	}
	c := Container{ID: docs[0].ID, Pid: docs[0].State.Pid, IPs: map[string]string{}, MACs: map[string]string{}}
	for network, n := range docs[0].NetworkSettings.Networks {
		c.IPs[network], c.MACs[network] = n.IPAddress, n.MacAddress
	}
	return c, nil
}

// In runs a command of the machine in the network namespace of a container, and returns what it printed.
func (e *Engine) In(ctx context.Context, c Container, argv ...string) (string, error) {
	return e.m.Run(ctx, append([]string{"nsenter", "--net=/proc/" + strconv.Itoa(c.Pid) + "/ns/net", "--"}, argv...)...)
}

// Stop stops dockerd, and with it all containers.
func (e *Engine) Stop() error { return e.process.Stop(startTimeout) }

// Kill ends dockerd at once. Containers keep running.
func (e *Engine) Kill() { e.process.Kill() }

// Logs returns what dockerd has logged.
func (e *Engine) Logs() string { return e.process.Logs() }

// Close removes all containers, stops dockerd and ends what it has left running on the machine.
func (e *Engine) Close(ctx context.Context) error {
	_, err := e.m.Run(ctx, "sh", "-c", "docker ps --all --quiet | xargs --no-run-if-empty docker rm --force")
	if stopErr := e.process.Stop(startTimeout); err == nil {
		err = stopErr
	}
	return errors.Join(err, e.endRest())
}

// endRest ends the processes that were not started by the lab and are on the machine: after Kill, those of containers.
func (e *Engine) endRest() error {
	var errs []error
	for _, pid := range e.processes("containerd-shim") {
		errs = append(errs, syscall.Kill(pid, syscall.SIGKILL))
	}
	return errors.Join(errs...)
}

// processes returns the processes on the machine with a name that begins as given.
func (e *Engine) processes(prefix string) (pids []int) {
	own, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", e.m.Init()))
	if err != nil {
		return nil // the machine is gone
	}
	spaces, _ := filepath.Glob("/proc/[0-9]*/ns/mnt") // the pattern is valid
	for _, path := range spaces {
		pid, _ := strconv.Atoi(strings.Split(path, "/")[2])
		space, err := os.Readlink(path)
		if err != nil || space != own {
			continue
		}
		if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err == nil && strings.HasPrefix(string(name), prefix) {
			pids = append(pids, pid)
		}
	}
	return pids
}
