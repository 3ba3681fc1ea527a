package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"weft/internal/nettest"
	"weft/internal/nettest/dockertest"
	"weft/internal/nettest/labtest"
)

// dockerHost is a machine with Docker and the plugin.
type dockerHost struct {
	*machine
	*dockertest.Engine
	plugin *nettest.Process
}

// newDockerHosts returns machines with Docker and weft, which know one another. args are those of "weft up".
func newDockerHosts(t *testing.T, n int, args ...string) (hosts []*dockerHost) {
	t.Helper()
	if _, err := exec.LookPath(dockertest.Program); err != nil {
		labtest.Missing(t, "dockerd (Debian: docker.io)")
	}
	machines := newMachines(t, n)
	for i, m := range machines {
		h := &dockerHost{machine: m}
		m.sh("cp " + filepath.Join(bin, "weft-docker") + " /usr/local/bin/")
		var peers []string
		for j := range machines {
			if j != i {
				peers = append(peers, fmt.Sprintf("host%d", j+1))
			}
		}
		m.up(append(args, peers...)...)
		h.servePlugin()
		e, err := dockertest.Start(testContext(t), m.Machine)
		if err != nil {
			t.Fatal(err)
		}
		h.Engine = e
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("dockerd on %s logged:\n%s\nthe plugin:\n%s", m.Label(), e.Logs(), h.plugin.Logs())
			}
			if err := e.Close(context.Background()); err != nil {
				t.Logf("closing dockerd on %s: %v", m.Label(), err)
			}
		})
		hosts = append(hosts, h)
	}
	return hosts
}

// servePlugin starts the plugin.
func (h *dockerHost) servePlugin() {
	h.t.Helper()
	p, err := h.machine.Start(nettest.ProcessConfig{Name: "plugin", Argv: []string{"weft-docker", "serve", "--log-level", "debug"}})
	if err != nil {
		h.t.Fatal(err)
	}
	h.plugin = p
	labtest.Until(h.t, patience, func() error {
		_, err := h.try("test -S /run/docker/plugins/weft.sock")
		return err
	})
}

// docker runs a docker command that must succeed.
func (h *dockerHost) docker(args ...string) string {
	h.t.Helper()
	out, err := h.Docker(testContext(h.t), args...)
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

// network creates a network of weft.
func (h *dockerHost) network(args ...string) {
	h.t.Helper()
	h.docker(append([]string{"network", "create", "-d", "weft", "--ipam-driver", "weft"}, args...)...)
}

// run starts a container and returns it.
func (h *dockerHost) run(name string, args ...string) dockertest.Container {
	h.t.Helper()
	h.docker(append(append([]string{"run", "--detach", "--name", name}, args...), dockertest.Image)...)
	return h.inspect(name)
}

func (h *dockerHost) inspect(name string) dockertest.Container {
	h.t.Helper()
	c, err := h.Inspect(testContext(h.t), name)
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

// in runs a command in the network namespace of a container, until it succeeds.
func (h *dockerHost) in(c dockertest.Container, argv ...string) (out string) {
	h.t.Helper()
	labtest.Until(h.t, patience, func() (err error) {
		out, err = h.In(testContext(h.t), c, argv...)
		return err
	})
	return strings.TrimSpace(out)
}

// TestDocker: containers of two hosts reach one another by address and by name.
func TestDocker(t *testing.T) {
	t.Parallel()
	hosts := newDockerHosts(t, 2)
	for _, h := range hosts {
		h.network("mynet")
	}
	web := hosts[0].run("web", "--network", "mynet")
	client := hosts[1].run("client", "--network", "mynet")
	hosts[1].in(client, "ping", "-n", "-c", "1", "-W", "1", web.IPs["mynet"])
	t.Log(hosts[0].docker("network", "inspect", "mynet"), hosts[1].in(client, "ip", "addr"), hosts[1].in(client, "ip", "route"), hosts[1].sh("weft dns list; weft ip list"))
}
