package e2e

import (
	"fmt"
	"strings"
	"testing"

	"weft/internal/nettest/dockertest"
	"weft/internal/nettest/labtest"
)

// TestDockerSwarm: a service of a swarm has a replica on each of three engines. The replicas reach one another, have addresses that no
// other one has, and are known by name.
func TestDockerSwarm(t *testing.T) {
	t.Parallel()
	hosts := newManagedHosts(t, 3)
	first := hosts[0]
	for _, h := range hosts { // a swarm looks for each image in a registry first: there is none, and no name server either
		h.sh("echo nameserver 127.0.0.1 > /run/resolv.conf && mount --bind /run/resolv.conf /etc/resolv.conf")
	}
	first.docker("swarm", "init", "--advertise-addr", first.Addr().String())
	token := first.docker("swarm", "join-token", "--quiet", "worker")
	for _, h := range hosts[1:] {
		h.docker("swarm", "join", "--advertise-addr", h.Addr().String(), "--token", token, first.Addr().String()+":2377")
	}
	for _, h := range hosts {
		h.docker("network", "create", "--config-only", "--ipam-driver", "weft:latest", "--subnet", "10.32.5.0/24", "mynet-config")
	}
	first.docker("network", "create", "-d", "weft:latest", "--scope", "swarm", "--config-from", "mynet-config", "mynet")
	first.docker("service", "create", "--detach", "--name", "web", "--mode", "global", "--network", "mynet", "--endpoint-mode", "dnsrr",
		"--no-resolve-image", dockertest.Image)
	replicas := make([]dockertest.Container, len(hosts))
	seen := map[string]bool{}
	for i, h := range hosts {
		labtest.Until(t, 2*patience, func() error {
			id, err := h.engine.Docker(testContext(t), "ps", "--quiet", "--filter", "label=com.docker.swarm.service.name=web")
			if err != nil {
				return err
			}
			if id == "" {
				return fmt.Errorf("no replica on %s: %s", h.Label(), first.docker("service", "ps", "--no-trunc", "web"))
			}
			replicas[i], err = h.engine.Inspect(testContext(t), id)
			return err
		})
		addr := replicas[i].IPs["mynet"]
		if addr == "" || seen[addr] {
			t.Errorf("the replica on %s has the address %q", h.Label(), addr)
		}
		seen[addr] = true
	}
	for i, h := range hosts {
		for j := range hosts {
			h.in(replicas[i], "ping", "-n", "-c", "1", "-W", "1", replicas[j].IPs["mynet"])
		}
	}
	labtest.Until(t, patience, func() error { // the service
		if out := first.sh("weft dns lookup web"); strings.Count(out, "10.32.5.") != len(hosts) {
			return fmt.Errorf("web is %s", out)
		}
		return nil
	})
	first.docker("service", "rm", "web")
	for _, h := range hosts {
		h.forgets("web")
	}
}
