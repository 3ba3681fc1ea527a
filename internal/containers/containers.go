// Package containers finds the network namespaces of containers by the names that their runtimes know: Docker, podman and containerd.
package containers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"weft/internal/dockerapi"
	"weft/internal/hint"
)

// Container is a running container.
type Container struct {
	Name string // empty: the runtime only knows its ID
	Pid  int    // of its first process
}

// Netns returns the path of the container's network namespace.
func (c Container) Netns() string { return fmt.Sprintf("/proc/%d/ns/net", c.Pid) }

// Finder knows where the runtimes of a host are. Its zero value knows none.
type Finder struct {
	// Sockets are those of Docker's API, which podman serves as well.
	Sockets []string
	// Podman is the command of podman; empty: none.
	Podman string
	// Tasks is the folder with the tasks of containerd: NAMESPACE/ID/init.pid.
	Tasks string
}

// Default returns the usual places. DOCKER_HOST may name another socket of Docker.
func Default() Finder {
	f := Finder{
		Sockets: []string{dockerapi.DefaultSocket, "/run/podman/podman.sock"}, Podman: "podman",
		Tasks: "/run/containerd/io.containerd.runtime.v2.task",
	}
	if path, ok := strings.CutPrefix(os.Getenv("DOCKER_HOST"), "unix://"); ok {
		f.Sockets = append([]string{path}, f.Sockets...)
	}
	return f
}

// errUnknown means that a runtime is not there, or has no such container.
var errUnknown = errors.New("containers: no such container")

// Find returns a running container by its name, its ID or the beginning of its ID. Its errors are *hint.Error.
func (f Finder) Find(ctx context.Context, name string) (Container, error) {
	var asked []string
	for _, r := range f.runtimes() {
		c, err := r.find(ctx, name)
		switch {
		case errors.Is(err, errUnknown):
			asked = append(asked, r.name)
		case err == nil && c.Pid == 0:
			return c, hint.New(hint.Refused, "Start it first.", "the container %s (%s) does not run", name, r.name)
		default:
			return c, err
		}
	}
	return Container{}, hint.New(hint.NotFound, "\"docker ps\" and \"podman ps\" show names; of containerd, only IDs are known.",
		"no container %q is known to %s", name, strings.Join(asked, ", "))
}

// runtime is one that may know a container.
type runtime struct {
	name string
	find func(ctx context.Context, name string) (Container, error) // returns errUnknown
}

// runtimes returns the runtimes in the order in which they are asked.
func (f Finder) runtimes() (list []runtime) {
	for _, socket := range f.Sockets {
		list = append(list, runtime{socket, func(ctx context.Context, name string) (Container, error) { return fromEngine(ctx, socket, name) }})
	}
	return append(list, runtime{"podman", f.fromPodman}, runtime{"containerd", f.fromContainerd})
}

// fromEngine asks a Docker Engine, or podman as one.
func fromEngine(ctx context.Context, socket, name string) (Container, error) {
	c, err := dockerapi.NewClient(socket).Container(ctx, name)
	switch {
	case errors.Is(err, dockerapi.ErrNoEngine), errors.Is(err, dockerapi.ErrNotFound):
		return Container{}, errUnknown
	case errors.Is(err, os.ErrPermission):
		return Container{}, hint.New(hint.Refused, "Run the command as root, for example with sudo.", "%w", err)
	case err != nil:
		return Container{}, hint.New(hint.Internal, "", "%w", err)
	}
	return Container{Name: c.Name, Pid: c.Pid}, nil
}

// fromPodman asks the command of podman: most hosts have no socket of it.
func (f Finder) fromPodman(ctx context.Context, name string) (Container, error) {
	if f.Podman == "" {
		return Container{}, errUnknown
	}
	out, err := exec.CommandContext(ctx, f.Podman, "container", "inspect", name).Output() //nolint:gosec // a name of a container
	if err != nil {
		return Container{}, errUnknown // without podman, too
	}
	var docs []struct {
		Name  string
		State struct{ Pid int }
	}
	if err := json.Unmarshal(out, &docs); err != nil || len(docs) != 1 {
		return Container{}, hint.New(hint.Internal, "", "podman describes the container %s in an unknown form: %w", name, err)
	}
	return Container{Name: docs[0].Name, Pid: docs[0].State.Pid}, nil
}

// fromContainerd looks for a task. Names are no concept of containerd.
func (f Finder) fromContainerd(_ context.Context, id string) (Container, error) {
	if f.Tasks == "" || id == "" || strings.ContainsAny(id, "/*?[\\") {
		return Container{}, errUnknown
	}
	files, err := filepath.Glob(filepath.Join(f.Tasks, "*", id+"*", "init.pid"))
	if err != nil || len(files) == 0 {
		return Container{}, errUnknown
	}
	if i := slices.IndexFunc(files, func(file string) bool { return filepath.Base(filepath.Dir(file)) == id }); i >= 0 {
		files = files[i : i+1]
	}
	if len(files) > 1 {
		return Container{}, hint.New(hint.Invalid, "Write more of it.", "%d containers have an ID that begins with %s", len(files), id)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		return Container{}, errUnknown // it has just ended
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 0 {
		return Container{}, hint.New(hint.Internal, "", "%s has no process ID: %q", files[0], text)
	}
	return Container{Pid: pid}, nil
}
