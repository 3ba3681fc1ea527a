package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"weft/internal/nettest/dockertest"
	"weft/internal/nettest/labtest"
)

// left returns everything that containers may leave behind on a host.
func (h *dockerHost) left() map[string][]string {
	h.t.Helper()
	lines := func(command string) []string {
		list := strings.Split(h.sh(command), "\n")
		slices.Sort(list)
		return list
	}
	return map[string][]string{
		"links":     lines("ip -o link | awk -F': ' '{print $2}'"),
		"rules":     lines("nft --stateless list ruleset"),
		"leases":    lines("weft ip list | awk '{print $1, $2}'"),
		"names":     lines("weft dns list | awk '{print $1, $2}'"),
		"endpoints": lines("grep -o '\"endpoints\":.*' /var/lib/weft/docker.json"),
		"guard":     lines("cat /var/lib/weft/guard.json"),
	}
}

// settles waits until nothing is left on a host but what was there before.
func (h *dockerHost) settles(before map[string][]string) {
	h.t.Helper()
	labtest.Until(h.t, 2*patience, func() error {
		if diff := cmp.Diff(before, h.left()); diff != "" {
			return fmt.Errorf("left behind on %s (-before +after):\n%s", h.Label(), diff)
		}
		return nil
	})
}

// TestDockerFifty: fifty containers are started ten at a time and removed. Each has an address of its own, and nothing is left.
func TestDockerFifty(t *testing.T) {
	t.Parallel()
	const count = 50
	hosts := newDockerHosts(t, 2, "--range", "10.32.0.0/12")
	a, b := hosts[0], hosts[1]
	for _, h := range hosts {
		h.network("mynet")
	}
	client := b.run("client", "--network", "mynet")
	a.run("first", "--network", "mynet", "--publish", "20999:80") // Docker makes rules that stay
	a.docker("rm", "--force", "first")
	a.forgets("first")
	before := a.left()
	var group errgroup.Group
	group.SetLimit(10)
	for i := range count {
		group.Go(func() error {
			_, err := a.engine.Docker(testContext(t), "run", "--detach", "--name", fmt.Sprint("c", i), "--network", "mynet",
				"--publish", fmt.Sprintf("%d:80", 20000+i), dockertest.Image)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{client.IPs["mynet"]: true}
	for i := range count {
		c := a.inspect(fmt.Sprint("c", i))
		if addr := c.IPs["mynet"]; addr == "" || seen[addr] {
			t.Errorf("container %d has the address %q, which another one has", i, addr)
		} else {
			seen[addr] = true
		}
		if i%20 == 0 {
			b.in(client, "ping", "-n", "-c", "1", "-W", "1", c.IPs["mynet"])
		}
	}
	labtest.Until(t, patience, func() error {
		if n := strings.Count(b.sh("weft dns list"), " host1 "); n < count {
			return fmt.Errorf("%d names of %d containers", n, count)
		}
		return nil
	})
	for i := range count {
		group.Go(func() error {
			_, err := a.engine.Docker(testContext(t), "rm", "--force", fmt.Sprint("c", i))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	a.settles(before)
}

// restartPlugin stops the plugin at once, and starts it again.
func (h *dockerHost) restartPlugin() {
	h.t.Helper()
	h.plugin.Kill()
	h.servePlugin()
}

// restartEngine starts dockerd again after it was stopped or killed.
func (h *dockerHost) restartEngine() {
	h.t.Helper()
	if err := h.engine.Run(testContext(h.t)); err != nil {
		h.t.Fatal(err)
	}
}

// TestDockerRestarts: restarts of dockerd, of the plugin and of weft, one after the other, at once and in the middle of a start, leave
// containers that work and nothing else.
func TestDockerRestarts(t *testing.T) {
	t.Parallel()
	hosts := newDockerHosts(t, 2)
	a, b := hosts[0], hosts[1]
	for _, h := range hosts {
		h.network("--subnet", "10.32.1.0/24", "mynet")
	}
	client := b.run("client", "--network", "mynet")
	a.run("web", "--network", "mynet", "--ip", "10.32.1.80", "--restart", "always")
	works := func(what string) {
		t.Helper()
		labtest.Until(t, 2*patience, func() error {
			_, err := b.engine.In(testContext(t), client, "ping", "-n", "-c", "1", "-W", "1", "10.32.1.80")
			if err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			return nil
		})
		labtest.Until(t, patience, func() error {
			if out := b.sh("weft dns list"); !strings.Contains(out, "web ") {
				return fmt.Errorf("%s: the name of the container is missing: %s", what, out)
			}
			return nil
		})
		if out, err := a.try("weft ip list"); err == nil && strings.Count(out, "10.32.1.80/") != 1 {
			t.Errorf("%s: leases %s", what, out)
		}
	}
	works("at the start")
	a.stop()
	works("without weft, as the kernel carries on")
	a.up("host2")
	works("after a restart of weft")
	a.restartPlugin()
	works("after a restart of the plugin")
	if err := a.engine.Stop(); err != nil {
		t.Fatal(err)
	}
	a.restartEngine()
	works("after a restart of dockerd")
	a.engine.Kill()
	a.restartEngine()
	works("after dockerd was killed")
	a.daemon.Kill()
	a.engine.Kill()
	a.plugin.Kill()
	a.up("host2")
	a.servePlugin()
	a.restartEngine()
	works("after all three were killed")

	// dockerd starts while weft is away: the container cannot start, and does so once weft is back.
	if err := a.engine.Stop(); err != nil {
		t.Fatal(err)
	}
	a.stop()
	a.plugin.Kill()
	a.restartEngine()
	a.servePlugin()
	a.up("host2")
	works("after dockerd was started without weft")

	a.docker("rm", "--force", "web")
	a.forgets("web")
	before := a.left()
	for _, kill := range []struct {
		name    string
		kill    func()
		restart func()
	}{
		{"dockerd", a.engine.Kill, a.restartEngine},
		{"the plugin", a.plugin.Kill, a.servePlugin},
		{"weft", a.daemon.Kill, func() { a.up("host2") }},
	} {
		for i := range 2 { // in the middle of a start, at different moments
			started := make(chan struct{})
			go func() {
				defer close(started)
				_, _ = a.engine.Docker(
					testContext(t),
					"run",
					"--detach",
					"--name",
					"half",
					"--network",
					"mynet",
					"--ip",
					"10.32.1.90",
					dockertest.Image,
				)
			}()
			labtest.Until(t, patience, func() error { // until the address is leased, and a moment more
				if out, err := a.try("weft ip list"); err != nil || !strings.Contains(out, "10.32.1.90/") {
					return fmt.Errorf("%s: %w", out, err)
				}
				return nil
			})
			<-time.After(time.Duration(i) * 60 * time.Millisecond)
			kill.kill()
			kill.restart()
			<-started
			if _, err := a.engine.Docker(testContext(t), "rm", "--force", "half"); err != nil &&
				!strings.Contains(err.Error(), "No such container") {
				t.Errorf("after %s was killed: %v", kill.name, err)
			}
			a.settles(before)
		}
		// The address is free for the next one.
		a.run("next", "--network", "mynet", "--ip", "10.32.1.90")
		a.docker("rm", "--force", "next")
		a.settles(before)
	}
}

// TestDockerSealed: containers of a network that is the whole range reach what "weft attach" has attached, encrypted.
func TestDockerSealed(t *testing.T) {
	t.Parallel()
	machines := newMachines(t, 2)
	secret := machines[0].sh("weft secret generate")
	for _, m := range machines {
		m.write("/etc/weft/secret", secret)
	}
	hosts := newDockerHostsOn(t, machines, "--secret-file", "/etc/weft/secret")
	a, b := hosts[0], hosts[1]
	a.network("--subnet", "10.32.0.0/12", "all")
	labtest.Until(t, patience, func() error {
		if out := b.sh("weft dns list"); !strings.Contains(out, "all.12.networks") {
			return fmt.Errorf("the network is not known yet: %s", out)
		}
		return nil
	})
	b.network("all") // the one that the other host has
	web := a.run("web", "--network", "all")
	a.serves(web)
	client := b.run("client", "--network", "all")
	b.fetch(client, web.IPs["all"])
	pod := b.attach("pod")
	a.in(web, "ping", "-n", "-c", "1", "-W", "1", pod)
	b.pings("pod", web.IPs["all"])
	if !a.status().Encrypted {
		t.Error("not encrypted")
	}
}
