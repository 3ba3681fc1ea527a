package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"weft/internal/api"
	"weft/internal/health"
	"weft/internal/nettest/labtest"
)

// readmeCommand finds the commands of the README: a line of a code block that begins with the prompt of a host. A remark may follow.
var readmeCommand = regexp.MustCompile(`(?m)^(host\d|admin)[#$] (.*?)(?: +# .*)?$`)

// step is a command of the README in the hour, or between two of them.
type step struct {
	on, command string
	// want is a pattern in what the command prints. For "weft up" it is one in the status of the node.
	want string
	// elsewhere says where the command is shown to work, if the hour does not run it.
	elsewhere string
}

// hour is what the README makes a newcomer type, in its order, with what is printed.
var hour = []step{
	{on: "host1", command: "weft up", want: `Ready  yes`},
	{on: "host2", command: "weft up host1", want: `Target  host1:6783 reached`},
	{on: "host3", command: "weft up host1", want: `Target  host1:6783 reached`},
	{on: "host2", command: "ip netns add p && weft attach --netns /run/netns/p", want: `^10\.\d+\.\d+\.\d+/12$`},
	{on: "host2", command: "weft expose", want: `^10\.\d+\.\d+\.\d+/12$`},
	{on: "host1", command: "install -d -m 700 /etc/weft", want: `^$`},
	{on: "host1", command: "(umask 077; weft secret generate > /etc/weft/secret)", want: `^$`},
	{on: "host1", command: "weft up --secret-file /etc/weft/secret", want: `Encryption  on`},
	{on: "host2", command: "weft up --secret-file /etc/weft/secret host1", want: `Encryption  on`},
	{on: "admin", command: "weft ca init", elsewhere: "TestIdentities"},
	{on: "admin", command: `ssh host1 weft identity request | weft ca sign - > host1.identity`, elsewhere: "TestIdentities"},
	{on: "admin", command: "weft revoke host7 --out list", elsewhere: "TestIdentities"},
	{on: "host2", command: "mkdir -p /etc/netns/p", want: `^$`},
	{on: "host2", command: `ip -n p route show default | awk '{print "nameserver " $3; print "search weft.local"}' > /etc/netns/p/resolv.conf`,
		want: `^$`},
	{on: "host1", command: "weft-docker serve &", elsewhere: "TestDocker"},
	{on: "host1", command: "docker network create -d weft --ipam-driver weft mynet", elsewhere: "TestDocker"},
	{on: "host1", command: "docker run -d --network mynet --name web -p 8080:80 nginx", elsewhere: "TestDocker"},
	{on: "host2", command: "docker run --rm --network mynet --dns $(weft dns address) --dns-search weft.local alpine wget -qO- http://web",
		elsewhere: "TestDocker"},
	{on: "host1", command: "apt install ./weft_*_amd64.deb && systemctl enable --now weft", elsewhere: "TestPackage"},
	{on: "host2", command: "apt install ./weft_*_amd64.deb && systemctl enable --now weft && weft connect host1", elsewhere: "TestPackage"},
}

// TestHour follows the README on three new hosts with default paths: its commands, in its order, each with what it prints. A command of the
// README that is not in the hour fails the test, and the other way round.
func TestHour(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..")
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	typed := readmeCommand.FindAllStringSubmatch(string(text), -1)
	if len(typed) != len(hour) {
		t.Errorf("the README has %d commands, the hour %d", len(typed), len(hour))
	}
	hosts := map[string]*machine{}
	ms := newMachines(t, 3)
	root, _ = filepath.Abs(root)
	for _, m := range ms {
		hosts[m.Label()] = m
	}
	ms[0].sh("rm /usr/local/bin/weft && make -s -C " + root + " build && make -s -C " + root + " install")
	if out := ms[0].sh("weft --version"); !strings.HasPrefix(out, "weft ") {
		t.Errorf("weft --version prints %q", out)
	}
	if out := ms[0].sh("weft doctor"); strings.Contains(out, "fail") {
		t.Errorf("weft doctor before the start:\n%s", out)
	}
	for i, s := range hour {
		if i < len(typed) && (typed[i][1] != s.on || typed[i][2] != s.command) {
			t.Fatalf("command %d of the README is %s# %s\nwant %s# %s", i+1, typed[i][1], typed[i][2], s.on, s.command)
		}
		if s.elsewhere != "" {
			continue
		}
		t.Logf("%s# %s", s.on, s.command)
		meanwhile(t, s, ms)
		hosts[s.on].follow(s)
	}
	ms[1].sh(`ip netns exec p getent hosts web`)
	secondDay(t, ms)
}

// follow runs a command of the README as typed, and checks what is printed. "weft up" stays in its terminal.
func (m *machine) follow(s step) {
	m.t.Helper()
	want := regexp.MustCompile("(?m)" + s.want)
	if !strings.HasPrefix(s.command, "weft up") {
		if out := m.sh(s.command); !want.MatchString(out) {
			m.t.Errorf("%s# %s printed %q, want %q", s.on, s.command, out, s.want)
		}
		return
	}
	if m.daemon != nil {
		m.stop()
	}
	m.up(strings.Fields(s.command)[2:]...)
	labtest.Until(m.t, patience, func() error {
		_, err := m.try("weft status | grep -E '" + s.want + "'")
		return err
	})
}

// meanwhile does what the prose of the README says beside its commands.
func meanwhile(t *testing.T, s step, ms []*machine) {
	t.Helper()
	switch {
	case s.command == "ip netns add p && weft attach --netns /run/netns/p":
		for _, m := range ms {
			m.sh("weft wait --for peers=3 && weft wait --for ipam")
		}
	case strings.HasPrefix(s.command, "install -d"):
		for _, m := range ms {
			m.shows(health.NoSecret)
		}
	case s.command == "weft up --secret-file /etc/weft/secret": // "and copy it to the others"
		secret := ms[0].sh("cat /etc/weft/secret")
		if mode := ms[0].sh("stat -c %a /etc/weft/secret"); mode != "600" {
			t.Errorf("the secret has mode %s", mode)
		}
		for _, m := range ms[1:] {
			m.write("/etc/weft/secret", secret+"\n")
		}
	case s.command == "mkdir -p /etc/netns/p":
		ms[2].stop()
		ms[2].up("--secret-file", "/etc/weft/secret", "host1")
		for _, m := range ms {
			m.sh("weft wait --for peers=3 --timeout " + patience.String())
			m.ends(health.NoSecret)
		}
		ms[2].attach("q", "--hostname", "web")
	}
}

// secondDay is what an administrator does after the first hour, by the commands of the README's table.
func secondDay(t *testing.T, ms []*machine) {
	t.Helper()
	one, two, three := ms[0], ms[1], ms[2]
	expect := func(m *machine, command, want string) {
		t.Helper()
		t.Logf("%s# %s", m.Label(), command)
		if out := m.sh(command); !regexp.MustCompile("(?m)" + want).MatchString(out) {
			t.Errorf("%s# %s printed %q, want %q", m.Label(), command, out, want)
		}
	}
	web := strings.Fields(one.sh("weft dns lookup web"))[0]
	two.pings("p", web)
	expect(one, "weft peers", `host2 .* alive .* direct .* aes-256-gcm|host2 .*alive.*direct`)
	expect(one, "weft dns list", `web +`+regexp.QuoteMeta(web)+` +host3 +node host3 +yes`)
	expect(one, "weft ipam", `10\.32\.0\.0/12`)
	expect(one, "weft doctor", `ok +`)
	expect(one, "weft report | grep -c '\"version\"'", `^[1-9]`)
	if secret := one.sh("cat /etc/weft/secret"); strings.Contains(one.sh("weft report"), secret) {
		t.Error("the report has the secret in it")
	}
	expect(two, "timeout -s INT 20 weft capture -c 1 -w /run/p.pcapng icmp >/dev/null 2>&1 & "+
		"for i in 1 2 3 4 5; do ip netns exec p ping -c 1 -i 0.2 -W 1 "+web+" >/dev/null; done; wait; ls /run/p.pcapng", `pcapng`)

	next := one.sh("weft secret generate")
	rotated := next + "\n" + one.sh("cat /etc/weft/secret") + "\n"
	for _, m := range ms {
		m.write("/etc/weft/secret", rotated)
		expect(m, "weft reload", `secret`)
	}
	for _, m := range ms {
		m.ends(health.SecretRotationIncomplete)
		m.write("/etc/weft/secret", next+"\n")
		expect(m, "weft reload", `secret`)
	}
	two.pings("p", web)

	three.daemon.Kill()
	one.obey(health.PeerDead)
	three.up("--secret-file", "/etc/weft/secret", "host1")
	three.ready()
	two.pings("p", web) // it has its address back
	three.ends(health.LeaseLost)

	expect(three, "weft leave", `host[12]`)
	<-three.daemon.Done()
	labtest.Until(t, patience, func() error {
		_, err := one.try("weft peers | grep -E 'host3.*left'")
		return err
	})
	three.up("--secret-file", "/etc/weft/secret", "host1")
	three.ready()
	if n := one.status().Peers[api.PeerAlive]; n < 2 {
		t.Errorf("%d nodes are alive", n)
	}
	one.sh("weft wait --for peers=3 --timeout " + patience.String())
	for _, m := range ms {
		for _, c := range m.status().Conditions {
			if c.Severity == api.SeverityError {
				t.Errorf("at the end %s shows %s: %s", m.Label(), c.Code, c.Text)
			}
		}
	}
}
