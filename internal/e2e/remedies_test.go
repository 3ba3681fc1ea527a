package e2e

import (
	"errors"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"weft/internal/api"
	"weft/internal/health"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
)

// Each test here brings a condition about, does what its remedy says, as it is printed, and sees the condition end.

// TestRemedyOfAHiddenGateway: pods keep their gateway over "weft hide" and "weft expose", and no pod gets its address meanwhile.
func TestRemedyOfAHiddenGateway(t *testing.T) {
	t.Parallel()
	m := newMachines(t, 1)[0]
	m.up()
	m.attach("p")
	before := m.sh("ip netns exec p ip route show default")
	if out := m.sh("weft hide 2>&1"); !strings.Contains(out, "netns:/run/netns/p/eth0") {
		t.Errorf("weft hide does not name the pod: %q", out)
	}
	gateway := strings.Fields(before)[2]
	if out, err := m.try("weft ip claim other " + gateway); err == nil {
		t.Errorf("another holder got the gateway of a pod: %s", out)
	}
	m.obey(health.PodGatewayMissing)
	if after := m.sh("ip netns exec p ip route show default"); after != before {
		t.Errorf("the default route was %q and is %q", before, after)
	}
	m.pings("p", gateway)
	m.sh("weft hide && weft expose 10.33.0.9/12")
	m.ends(health.PodGatewayMissing)
	m.pings("p", gateway)
	m.sh("weft detach --netns /run/netns/p && weft hide")
	labtest.Until(t, patience, func() error {
		_, err := m.try("weft ip claim other " + gateway)
		return err // until the reservation ends with the pod
	})
}

// TestRemediesOfAReclaimedNode: a node that was reclaimed while it was away, with addresses that are in use elsewhere now. Its pod and its
// bridge get others, and the name of the pod follows.
func TestRemediesOfAReclaimedNode(t *testing.T) {
	t.Parallel()
	ms := newMachines(t, 2)
	one, two := ms[0], ms[1]
	one.up("host2")
	two.up("host1")
	other := one.attach("other")
	addr := two.attach("w", "--hostname", "w")
	gateway := strings.Fields(two.sh("ip netns exec w ip route show default"))[2]
	two.daemon.Kill()
	one.obey(health.PeerDead) // weft reclaim
	one.sh("weft ip claim x " + addr + " && weft ip claim x " + gateway)
	two.up("host1")
	two.shows(health.PodAddressNotOwned)
	two.obey(health.GatewayAddressNotOwned)
	two.obey(health.LeaseLost)
	two.ends(health.PodAddressNotOwned)
	labtest.Until(t, patience, func() error {
		_, err := two.try("weft dns lookup w && ! weft dns lookup w | grep -w " + addr)
		return err
	})
	two.pings("w", other)
	if out := two.sh("ip netns exec w ip -br addr show eth0"); strings.Contains(out, addr+"/") {
		t.Errorf("the pod keeps the lost address: %s", out)
	}
	two.sh("weft detach --netns /run/netns/w")
	one.forgets("w")
}

// TestReclaimedNodeHealsItself: a node that was reclaimed while it was away gets the addresses of its pods and of its bridge back as long
// as no other holder has them.
func TestReclaimedNodeHealsItself(t *testing.T) {
	t.Parallel()
	ms := newMachines(t, 2)
	one, two := ms[0], ms[1]
	one.up("host2")
	two.up("host1")
	addr := two.attach("w", "--hostname", "w")
	other := one.attach("other")
	two.daemon.Kill()
	one.obey(health.PeerDead)
	two.up("host1")
	for _, code := range []health.Code{health.LeaseLost, health.PodsWithoutLease, health.GatewayAddressNotOwned} {
		two.ends(code)
	}
	if out := two.sh("weft ip lookup netns:/run/netns/w/eth0"); !strings.Contains(out, addr) {
		t.Errorf("the pod has %q, want %s", out, addr)
	}
	two.pings("w", other)
	two.sh("weft detach --netns /run/netns/w")
	one.forgets("w")
}

// TestRemedyOfAnUnseenOwner: a node that comes back alone names the owner that it has not seen, and can reclaim it.
func TestRemedyOfAnUnseenOwner(t *testing.T) {
	t.Parallel()
	ms := newMachines(t, 2)
	ms[0].up("host2")
	ms[1].up("host1")
	ms[0].sh("weft wait --for ipam && weft wait --for peers=2")
	labtest.Until(t, patience, func() error { // the name is on disk
		_, err := ms[0].try("grep -q host2 /var/lib/weft/targets.json")
		return err
	})
	ms[1].stop()
	ms[0].stop()
	ms[0].up()
	if c := ms[0].shows(health.OwnerUnseen); !strings.Contains(c.Text, "host2") || !strings.Contains(c.Text, ms[1].Addr().String()) {
		t.Errorf("the node is not named: %s", c.Text)
	}
	ms[0].obey(health.OwnerUnseen)
}

// TestRemedyOfAnUnreachableTarget: "weft forget", as printed, ends the condition.
func TestRemedyOfAnUnreachableTarget(t *testing.T) {
	t.Parallel()
	m := newMachines(t, 1)[0]
	m.up()
	m.ready()
	m.sh("weft connect 192.168.77.250:6783")
	m.obey(health.TargetUnreachable)
}

// TestRemedyOfAnotherSecret: one common line ends a key mismatch, which does not come back when the node dies. A target is not said to be
// reached while it is dead, and a node that is kept out is not one to reclaim.
func TestRemedyOfAnotherSecret(t *testing.T) {
	t.Parallel()
	ms := newMachines(t, 2)
	one, two := ms[0], ms[1]
	secret, other := one.sh("weft secret generate"), one.sh("weft secret generate")
	for _, m := range ms {
		m.write("/etc/weft/secret", secret+"\n")
	}
	one.up("--secret-file", "/etc/weft/secret", "host2")
	two.up("--secret-file", "/etc/weft/secret", "host1")
	two.sh("weft wait --for ipam && weft wait --for peers=2")
	two.write("/etc/weft/secret", other+"\n")
	two.stop()
	two.up("--secret-file", "/etc/weft/secret", "host1")
	one.shows(health.KeyMismatch)
	two.shows(health.TargetKeyMismatch)
	two.write("/etc/weft/secret", other+"\n"+secret+"\n")
	one.write("/etc/weft/secret", secret+"\n"+other+"\n")
	two.obey(health.TargetKeyMismatch)
	one.sh("weft reload")
	two.sh("weft wait --for peers=2 --timeout " + patience.String())
	one.ends(health.KeyMismatch)
	one.daemon.Kill()
	two.shows(health.PeerDead)
	s := two.status()
	for _, c := range s.Conditions {
		if c.Code == string(health.KeyMismatch) {
			t.Errorf("a mismatch that was over is back: %s", c.Text)
		}
	}
	for _, target := range s.Targets {
		if target.Error == "" {
			t.Errorf("target %s is reached although its node is dead", target.Addr)
		}
	}
}

// TestRemedyOfAnUnfinishedRotation: a new secret that one node lacks is a condition until that node has it.
func TestRemedyOfAnUnfinishedRotation(t *testing.T) {
	t.Parallel()
	ms := newMachines(t, 2)
	old, next := ms[0].sh("weft secret generate"), ms[0].sh("weft secret generate")
	for i, m := range ms {
		m.write("/etc/weft/secret", old+"\n")
		m.up("--secret-file", "/etc/weft/secret", ms[1-i].Label())
	}
	ms[0].sh("weft wait --for peers=2")
	ms[0].write("/etc/weft/secret", next+"\n"+old+"\n")
	ms[0].sh("weft reload")
	c := ms[0].shows(health.SecretRotationIncomplete)
	if !strings.Contains(c.Text, "host2") {
		t.Errorf("the node is not named: %s", c.Text)
	}
	ms[1].write("/etc/weft/secret", next+"\n"+old+"\n")
	for _, command := range remedyCommands(c) {
		ms[1].sh(command)
	}
	ms[0].ends(health.SecretRotationIncomplete)
}

// TestRemedyOfAnotherRange: both nodes name the other one and both ranges, and nothing is left after it was started anew.
func TestRemedyOfAnotherRange(t *testing.T) {
	t.Parallel()
	ms := newMachines(t, 2)
	ms[0].up()
	ms[0].sh("weft wait --for ipam")
	ms[1].up("--range", "10.64.0.0/16", "host1")
	for i, m := range ms {
		c := m.shows(health.RangeMismatch)
		for _, want := range []string{ms[1-i].Label(), "10.64.0.0/16", "10.32.0.0/12"} {
			if !strings.Contains(c.Text, want) {
				t.Errorf("%s: %q does not contain %q", m.Label(), c.Text, want)
			}
		}
	}
	ms[1].stop()
	ms[1].sh("rm -f /var/lib/weft/ipam.db")
	ms[1].up("host1")
	for _, m := range ms {
		m.ends(health.RangeMismatch)
		m.ends(health.GossipRejected)
	}
	ms[1].sh("weft wait --for ipam")
}

// TestRemedyOfAnotherDomain: both nodes name the other one and both domains, until they have one. Names outlast the change.
func TestRemedyOfAnotherDomain(t *testing.T) {
	t.Parallel()
	ms := newMachines(t, 2)
	ms[0].up("--dns-domain", "pods.example.org")
	ms[1].up("host1")
	ms[1].sh("weft wait --for peers=2")
	for i, m := range ms {
		c := m.shows(health.DNSDomainMismatch)
		for _, want := range []string{ms[1-i].Label(), "pods.example.org", "weft.local"} {
			if !strings.Contains(c.Text, want) {
				t.Errorf("%s: %q does not contain %q", m.Label(), c.Text, want)
			}
		}
	}
	ms[1].sh("weft wait --for ipam")
	ms[1].sh("weft dns add db.weft.local 10.32.0.9")
	ms[1].stop()
	ms[1].up("--dns-domain", "pods.example.org", "host1")
	for _, m := range ms {
		m.ends(health.DNSDomainMismatch)
		if got := strings.TrimSpace(m.sh("weft dns lookup db.pods.example.org")); got != "10.32.0.9" {
			t.Errorf("%s: the name is at %q", m.Label(), got)
		}
	}
}

// TestRemedyOfAnotherVersion: nodes of two versions name one another, until the upgrade is done.
func TestRemedyOfAnotherVersion(t *testing.T) {
	t.Parallel()
	ms := newMachines(t, 2)
	newer := filepath.Join(t.TempDir(), "weft")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-X main.version=v9.9.9", "-o", newer, "weft/cmd/weft")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	ms[0].up("host2")
	ms[1].sh("cp " + newer + " /usr/local/bin/weft")
	ms[1].up("host1")
	if c := ms[0].shows(health.VersionMismatch); !strings.Contains(c.Text, "host2 has v9.9.9") {
		t.Errorf("%s", c.Text)
	}
	ms[0].stop()
	ms[0].sh("cp " + newer + " /usr/local/bin/weft")
	ms[0].up("host2")
	for _, m := range ms {
		m.ends(health.VersionMismatch)
	}
}

// TestRemedyOfAFullDisk: a full state directory is a condition, and the node is not ready for pods, until there is room again.
func TestRemedyOfAFullDisk(t *testing.T) {
	t.Parallel()
	m := newMachines(t, 1)[0]
	m.up()
	m.attach("p")
	m.sh("mount -o remount,size=64M /var/lib && dd if=/dev/zero of=/var/lib/ballast bs=1M 2>/dev/null; df /var/lib | grep -q 100%")
	if c := m.shows(health.StateWriteFailed); !strings.Contains(c.Remedy, "df -h /var/lib/weft") {
		t.Errorf("%s %s", c.Text, c.Remedy)
	}
	if out, err := m.try("curl -fsS http://127.0.0.1:6782/readyz"); err == nil {
		t.Errorf("/readyz with a full disk: %s", out)
	}
	out, err := m.try("weft dns add full 10.32.0.77")
	if code := cluster.ExitCode(err); code != 1 {
		t.Errorf("a name that cannot be saved: exit code %d, %s", code, out)
	}
	m.sh("rm /var/lib/ballast")
	m.ends(health.StateWriteFailed)
	m.sh("weft dns add full 10.32.0.77 && curl -fsS http://127.0.0.1:6782/readyz")
}

// TestRemedyOfALostDatabase: a pod that was attached under an owner is without a lease after ipam.db was lost, and has it again after the
// same command. Pods of named namespaces need no command.
func TestRemedyOfALostDatabase(t *testing.T) {
	t.Parallel()
	m := newMachines(t, 1)[0]
	m.up()
	addr := m.attach("p", "--owner", "db")
	plain := m.attach("q")
	m.stop()
	m.sh("rm /var/lib/weft/ipam.db")
	m.up()
	m.sh("weft wait --for ipam --timeout " + patience.String())
	var c api.Condition
	labtest.Until(t, patience, func() error {
		if c = m.shows(health.PodsWithoutLease); !strings.HasPrefix(c.Text, "1 pod runs here") || !strings.Contains(c.Text, addr) {
			return errors.New(c.Text)
		}
		return nil
	})
	for _, command := range remedyCommands(c) {
		m.sh(command + " --netns /run/netns/p --owner db")
	}
	m.ends(health.PodsWithoutLease)
	out := m.sh("weft ip lookup db && weft ip lookup netns:/run/netns/q/eth0")
	if !strings.Contains(out, addr) || !strings.Contains(out, plain) {
		t.Errorf("leases %q, want %s and %s", out, addr, plain)
	}
}

// TestRemedyOfABusyPort53: another program on port 53 is a condition until it is gone.
func TestRemedyOfABusyPort53(t *testing.T) {
	t.Parallel()
	m := newMachines(t, 1)[0]
	var busy net.PacketConn
	if err := m.Do(func() (err error) {
		busy, err = net.ListenPacket("udp", netip.MustParseAddrPort("0.0.0.0:53").String())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	m.up()
	m.attach("p")
	m.shows(health.DNSNotListening)
	if err := busy.Close(); err != nil {
		t.Fatal(err)
	}
	m.ends(health.DNSNotListening)
}

// TestRemedyOfAnUndividedRange: a node that waits for others says for how many, and "weft connect" ends that.
func TestRemedyOfAnUndividedRange(t *testing.T) {
	t.Parallel()
	ms := newMachines(t, 2)
	ms[0].up("--init-peers", "2")
	if c := ms[0].shows(health.RangeNotReady); !strings.Contains(c.Text, "1 of 2") {
		t.Errorf("%s", c.Text)
	}
	ms[1].up("--init-peers", "2")
	ms[0].sh("weft connect host2")
	for _, m := range ms {
		m.ends(health.RangeNotReady)
	}
}
