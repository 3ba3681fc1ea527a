package nettest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Machine is a host with mounts and a hostname of its own, so that programs on it use their default paths.
type Machine struct {
	*Host
	init int // process that keeps the namespaces
}

// ownDirs are the folders that each machine has for itself: those that weft and a container runtime write to, and that of its programs.
var ownDirs = []string{"/var/lib", "/run", "/etc/weft", "/etc/cni", "/opt", "/usr/local/bin"}

// machineScript sets up a machine and stays. Its arguments are the hostname, the host's folder, the entries of /etc/hosts, and ownDirs.
const machineScript = `set -e
hostname "$1"
cp /etc/hosts "$2/hosts"
printf '%b' "$3" >> "$2/hosts"
mount --bind "$2/hosts" /etc/hosts
for d in $4; do mkdir -p "$d"; mount -t tmpfs -o mode=0755 own "$d"; done
mkdir -p /run/netns
mount --bind /run/netns /run/netns
mount --make-shared /run/netns
mount -t sysfs sysfs /sys
echo ready > "$2/ready"
exec sleep infinity`

// machineTimeout bounds the set-up of a machine.
const machineTimeout = 10 * time.Second

// AddMachine makes a machine of a host. The names in hosts resolve to their addresses on it.
func (h *Host) AddMachine(hosts []*Host) (*Machine, error) {
	var entries strings.Builder
	for _, o := range hosts {
		fmt.Fprintf(&entries, "%s %s\\n", o.Addr(), o.Label())
	}
	p, err := h.start(ProcessConfig{
		Name: "machine",
		Argv: []string{"unshare", "--mount", "--uts", "--propagation", "private", "sh", "-c", machineScript, "sh",
			h.name, h.dir, entries.String(), strings.Join(ownDirs, " ")},
	}, []string{"--net=" + h.Path(), "--"})
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(machineTimeout)
	for {
		if _, err := os.Stat(filepath.Join(h.dir, "ready")); err == nil {
			break
		}
		select {
		case <-p.Done():
			return nil, fmt.Errorf("nettest: the machine %s: %s", h.name, p.Logs())
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("nettest: the machine %s is not ready: %s", h.name, p.Logs())
		}
	}
	return &Machine{Host: h, init: p.Pid()}, nil
}

// Command returns a command that runs on the machine.
func (m *Machine) Command(ctx context.Context, argv ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", append(m.enter(), argv...)...)
}

// Run runs a command on the machine and returns its standard output and standard error. The error contains them, too.
func (m *Machine) Run(ctx context.Context, argv ...string) (string, error) {
	out, err := m.Command(ctx, argv...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("nettest: %s on %s: %w: %s", strings.Join(argv, " "), m.name, err, strings.TrimSpace(string(out)))
	}
	return string(out), err
}

// Start starts a background process on the machine. It runs until it exits, or until Stop, Kill or the lab's Close.
func (m *Machine) Start(c ProcessConfig) (*Process, error) {
	return m.start(c, m.enter())
}

// enter returns the arguments of nsenter for the machine.
func (m *Machine) enter() []string {
	return []string{"--target", strconv.Itoa(m.init), "--mount", "--uts", "--net", "--"}
}

// Init returns the ID of the process that keeps the machine's namespaces.
func (m *Machine) Init() int { return m.init }
