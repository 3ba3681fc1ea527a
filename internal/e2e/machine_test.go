package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"weft/internal/api"
	"weft/internal/health"
	"weft/internal/nettest"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
)

// machine is a host with default paths, as an operator has it: commands are typed without --socket and --state-dir.
type machine struct {
	*nettest.Machine
	t      *testing.T
	daemon *nettest.Process
}

// newMachines returns machines that know one another by name: host1, host2 and so on. weft is in their /usr/local/bin.
func newMachines(t *testing.T, n int) []*machine {
	t.Helper()
	lab := labtest.New(t, nettest.Config{})
	var hosts []*nettest.Host
	for i := range n {
		hosts = append(hosts, labtest.AddHost(t, lab, fmt.Sprintf("host%d", i+1)))
	}
	var machines []*machine
	for _, h := range hosts {
		m, err := h.AddMachine(hosts)
		if err != nil {
			t.Fatal(err)
		}
		machines = append(machines, &machine{Machine: m, t: t})
		machines[len(machines)-1].sh("cp " + filepath.Join(bin, "weft") + " /usr/local/bin/")
	}
	return machines
}

// try runs a command line on the machine, and returns what it printed.
func (m *machine) try(line string) (string, error) {
	out, err := m.Run(testContext(m.t), "sh", "-c", line)
	return strings.TrimRight(out, "\n"), err
}

// sh runs a command line on the machine that must succeed, and returns what it printed.
func (m *machine) sh(line string) string {
	m.t.Helper()
	out, err := m.try(line)
	if err != nil {
		m.t.Fatal(err)
	}
	return out
}

// up runs "weft up" with the given arguments in the background, and waits until it answers.
func (m *machine) up(args ...string) {
	m.t.Helper()
	m.start(append([]string{"weft", "up"}, args...)...)
	labtest.Until(m.t, patience, func() error {
		_, err := m.try("weft status")
		return err
	})
}

// ready waits until the machine is ready for pods.
func (m *machine) ready() {
	m.t.Helper()
	m.sh("weft wait --for ready --timeout " + patience.String())
}

// start starts a daemon in the background. Its log is printed if the test fails.
func (m *machine) start(argv ...string) {
	m.t.Helper()
	p, err := m.Start(nettest.ProcessConfig{Name: "weft", Argv: argv})
	if err != nil {
		m.t.Fatal(err)
	}
	m.daemon = p
	m.t.Cleanup(func() {
		if m.t.Failed() {
			m.t.Logf("weft on %s logged:\n%s", m.Label(), p.Logs())
		}
	})
}

// stop stops the daemon as an upgrade does.
func (m *machine) stop() {
	m.t.Helper()
	if err := m.daemon.Stop(cluster.Grace); err != nil {
		m.t.Fatal(err)
	}
}

// status returns the status document of the node.
func (m *machine) status() (s api.Status) {
	m.t.Helper()
	if err := json.Unmarshal([]byte(m.sh("weft status --json")), &s); err != nil {
		m.t.Fatal(err)
	}
	return s
}

// shows waits until the node has a condition, and returns it.
func (m *machine) shows(code health.Code) (found api.Condition) {
	m.t.Helper()
	labtest.Until(m.t, 2*patience, func() error {
		var others []string
		for _, c := range m.status().Conditions {
			if c.Code == string(code) {
				found = c
				return nil
			}
			others = append(others, c.Code)
		}
		return fmt.Errorf("%s shows %v, want %s", m.Label(), others, code)
	})
	return found
}

// ends waits until the node has no condition of a code any more.
func (m *machine) ends(code health.Code) {
	m.t.Helper()
	labtest.Until(m.t, 2*patience, func() error {
		for _, c := range m.status().Conditions {
			if c.Code == string(code) {
				return fmt.Errorf("%s still shows %s: %s %s", m.Label(), code, c.Text, c.Remedy)
			}
		}
		return nil
	})
}

// quotedCommand finds the commands in a remedy.
var quotedCommand = regexp.MustCompile(`"(weft [^"]*)"`)

// remedyCommands returns the commands of weft that a remedy names, as they are printed.
func remedyCommands(c api.Condition) (list []string) {
	for _, m := range quotedCommand.FindAllStringSubmatch(c.Remedy, -1) {
		list = append(list, m[1])
	}
	return list
}

// obey runs the commands of a condition's remedy on the machine, as they are printed, and waits until the condition is gone.
func (m *machine) obey(code health.Code) {
	m.t.Helper()
	c := m.shows(code)
	list := remedyCommands(c)
	if len(list) == 0 {
		m.t.Fatalf("the remedy of %s names no command: %s", code, c.Remedy)
	}
	for _, command := range list {
		m.t.Logf("%s# %s", m.Label(), command)
		m.sh(command)
	}
	m.ends(code)
}

// write replaces a file of the machine, which only its owner can read.
func (m *machine) write(path, text string) {
	m.t.Helper()
	local := filepath.Join(m.Dir(), "content")
	if err := os.WriteFile(local, []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
	m.sh("install -D -m 0600 " + local + " " + path)
}

// attach creates a namespace on the machine and attaches it. It returns the address.
func (m *machine) attach(name string, args ...string) string {
	m.t.Helper()
	m.ready()
	out := m.sh("ip netns add " + name + " && weft attach --netns /run/netns/" + name + " " + strings.Join(args, " "))
	addr, _, _ := strings.Cut(out, "/")
	return addr
}

// pings waits until an address answers a ping from a namespace of the machine.
func (m *machine) pings(name, addr string) {
	m.t.Helper()
	labtest.Until(m.t, patience, func() error {
		_, err := m.try("ip netns exec " + name + " ping -n -c 1 -W 1 " + addr)
		return err
	})
}

// forgets waits until a name is not in the node's list any more.
func (m *machine) forgets(name string) {
	m.t.Helper()
	labtest.Until(m.t, patience, func() error {
		if out := m.sh("weft dns list --json"); strings.Contains(out, fmt.Sprintf("%q", name)) {
			return fmt.Errorf("the name is left: %s", out)
		}
		return nil
	})
}
