package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"weft/internal/nettest"
	"weft/internal/nettest/critest"
	"weft/internal/nettest/dockertest"
	"weft/internal/nettest/labtest"
)

// dockerHost is a machine with Docker and the plugin.
type dockerHost struct {
	*machine
	engine *dockertest.Engine
	plugin *nettest.Process
}

// newDockerHosts returns machines with Docker and weft, which know one another. args are those of "weft up".
func newDockerHosts(t *testing.T, n int, args ...string) []*dockerHost {
	t.Helper()
	return newDockerHostsOn(t, newMachines(t, n), args...)
}

// newManagedHosts is newDockerHosts with the plugin in its managed form, which Docker runs itself.
func newManagedHosts(t *testing.T, n int) []*dockerHost {
	t.Helper()
	hosts := newEngines(t, newMachines(t, n))
	dir := filepath.Join(t.TempDir(), "plugin")
	for _, argv := range [][]string{
		{"install", "-D", "-m", "0755", filepath.Join(bin, "weft-docker"), filepath.Join(dir, "rootfs", "weft-docker")},
		{"install", "-m", "0644", "../../deploy/docker/config.json", filepath.Join(dir, "config.json")}, // as "make docker-plugin"
	} {
		if out, err := exec.CommandContext(testContext(t), argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	for _, h := range hosts {
		h.docker("plugin", "create", "weft", dir)
		h.docker("plugin", "enable", "weft")
	}
	return hosts
}

// newDockerHostsOn is newDockerHosts on existing machines.
func newDockerHostsOn(t *testing.T, machines []*machine, args ...string) []*dockerHost {
	t.Helper()
	hosts := newEngines(t, machines, args...)
	for _, h := range hosts {
		h.servePlugin()
	}
	return hosts
}

// startEngine starts Docker on a machine.
func startEngine(t *testing.T, m *machine) *dockertest.Engine {
	t.Helper()
	if _, err := exec.LookPath(dockertest.Program); err != nil {
		labtest.Missing(t, "dockerd (Debian: docker.io)")
	}
	e, err := dockertest.Start(testContext(t), m.Machine)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := m.Run(context.Background(), "sh", "-c", "bridge fdb show br weave; weft fdb; weft peers; weft status; nft list ruleset")
			t.Logf("dockerd on %s logged:\n%s\nfrom there:\n%s", m.Label(), e.Logs(), out)
		}
		if err := e.Close(context.Background()); err != nil {
			t.Logf("closing dockerd on %s: %v", m.Label(), err)
		}
	})
	return e
}

// newEngines returns machines with Docker and weft, without the plugin.
func newEngines(t *testing.T, machines []*machine, args ...string) (hosts []*dockerHost) {
	t.Helper()
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
		h.engine = startEngine(t, m)
		hosts = append(hosts, h)
	}
	return hosts
}

// servePlugin starts the plugin.
func (h *dockerHost) servePlugin() {
	h.t.Helper()
	p, err := h.Start(nettest.ProcessConfig{Name: "plugin", Argv: []string{"weft-docker", "serve", "--log-level", "debug"}})
	if err != nil {
		h.t.Fatal(err)
	}
	if h.plugin == nil {
		h.t.Cleanup(func() {
			if h.t.Failed() {
				h.t.Logf("the plugin on %s logged:\n%s", h.Label(), h.plugin.Logs())
			}
		})
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
	out, err := h.engine.Docker(testContext(h.t), args...)
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
	c, err := h.engine.Inspect(testContext(h.t), name)
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

// in runs a command in the network namespace of a container, until it succeeds.
func (h *dockerHost) in(c dockertest.Container, argv ...string) (out string) {
	h.t.Helper()
	labtest.Until(h.t, patience, func() (err error) {
		out, err = h.engine.In(testContext(h.t), c, argv...)
		return err
	})
	return strings.TrimSpace(out)
}

// answersAt returns the address at which the node answers queries for names.
func (h *dockerHost) answersAt() string {
	h.t.Helper()
	return h.sh("weft dns address")
}

// resolves waits until a name leads to an address at Docker's own name server in a container.
func (h *dockerHost) resolves(c dockertest.Container, name, addr string) {
	h.t.Helper()
	labtest.Until(h.t, patience, func() error {
		out, err := h.engine.In(testContext(h.t), c, "dig", "+short", "+time=2", "+tries=1", "@127.0.0.11", name)
		if err == nil && strings.TrimSpace(out) != addr {
			err = fmt.Errorf("%s is %q in the container, want %s", name, out, addr)
		}
		return err
	})
}

// blocked checks that nothing listens to an address from a container.
func (h *dockerHost) blocked(c dockertest.Container, addr string) {
	h.t.Helper()
	if out, err := h.engine.In(testContext(h.t), c, "curl", "--silent", "--max-time", "1", "http://"+addr); err == nil {
		h.t.Errorf("a container of another network reaches %s: %s", addr, out)
	}
}

// serves serves HTTP at port 80 of a container until the test ends.
func (h *dockerHost) serves(c dockertest.Container) {
	h.t.Helper()
	serveHTTP(h.t, &critest.Pod{Netns: fmt.Sprintf("/proc/%d/ns/net", c.Pid)})
}

// fetch fetches a page from a container, until it succeeds.
func (h *dockerHost) fetch(c dockertest.Container, addr string, options ...string) {
	h.t.Helper()
	h.in(c, append(append([]string{"curl", "--silent", "--show-error", "--fail", "--max-time", "3"}, options...), "http://"+addr)...)
}

// TestDocker: containers of two hosts reach one another by address and by name, with the MTU of the overlay, and reach the outside; their
// names end with them.
func TestDocker(t *testing.T) {
	t.Parallel()
	machines := newMachines(t, 3)
	hosts, third := newDockerHostsOn(t, machines[:2]), machines[2]
	a, b := hosts[0], hosts[1]
	for _, h := range hosts {
		h.network("mynet")
	}
	web := a.run("web", "--network", "mynet", "--network-alias", "Shop_1", "--publish", "8080:80")
	a.serves(web)
	client := b.run("client", "--network", "mynet", "--dns", b.answersAt()) // the first container of its host
	addr := web.IPs["mynet"]
	b.in(client, "ping", "-n", "-c", "1", "-W", "1", addr)
	b.fetch(client, addr)
	size := fmt.Sprint(a.status().MTU - 28)
	b.in(client, "ping", "-n", "-c", "1", "-W", "1", "-M", "do", "-s", size, addr)

	// By name: of the same network on the same host by Docker itself, of other hosts by weft.
	named := b.run("named", "--network", "mynet", "--dns", b.answersAt(), "--dns-search", "weft.local")
	b.resolves(client, "web.weft.local", addr)
	b.resolves(named, "client", client.IPs["mynet"])
	b.resolves(named, "client.weft.local", client.IPs["mynet"])
	b.resolves(named, "web.weft.local", addr)
	b.resolves(named, "shop-1.weft.local", addr)
	if out := b.sh("cat /var/lib/docker/containers/" + named.ID + "/resolv.conf"); !strings.Contains(out, "search weft.local") {
		t.Errorf("resolv.conf of the container: %s", out)
	}
	b.fetch(named, "web.weft.local", "--connect-to", "web.weft.local::"+addr)

	// Published ports, from a host without weft, from another node, from the host itself and from the container itself; and the way out.
	outside := fmt.Sprintf("%s:8080", a.Addr())
	for _, m := range []*machine{third, b.machine, a.machine} {
		m.sh("curl --silent --fail --max-time 3 http://" + outside)
	}
	a.fetch(web, outside)
	b.in(client, "ping", "-n", "-c", "1", "-W", "1", third.Addr().String())

	a.docker("rm", "--force", "web")
	for _, h := range hosts {
		h.forgets("web")
		h.forgets("shop-1")
	}
	if out := a.sh("weft ip list"); strings.Contains(out, addr) {
		t.Errorf("the address is leased after its container: %s", out)
	}
}
