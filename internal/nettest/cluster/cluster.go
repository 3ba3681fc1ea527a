// Package cluster runs real weft daemons on the hosts of a lab, and their commands.
package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"weft/internal/nettest"
)

// Grace is how long a daemon may take to end after SIGTERM.
const Grace = 5 * time.Second

// Node is a daemon on a host, or the place for one.
type Node struct {
	*nettest.Host
	bin     string
	process *nettest.Process
}

// NewNode returns a node on host whose programs are in folder bin. It does not run yet.
func NewNode(host *nettest.Host, bin string) *Node { return &Node{Host: host, bin: bin} }

// Weft returns the command that runs weft with the given arguments on the node's host, against its daemon.
func (n *Node) Weft(ctx context.Context, args ...string) *exec.Cmd {
	cmd := n.Command(ctx, append([]string{n.program()}, args...)...)
	cmd.Env = append(cmd.Environ(), "WEFT_SOCKET="+n.Socket())
	return cmd
}

// Do runs a weft command and returns its output without the last line's end. The error repeats what it printed.
func (n *Node) Do(ctx context.Context, args ...string) (string, error) {
	out, err := n.Weft(ctx, args...).CombinedOutput()
	text := strings.TrimRight(string(out), "\n")
	if err != nil {
		return text, fmt.Errorf("weft %s on %s: %w: %s", strings.Join(args, " "), n.Label(), err, text)
	}
	return text, nil
}

// Query runs a weft command with --json and decodes its answer into doc.
func (n *Node) Query(ctx context.Context, doc any, args ...string) error {
	out, err := n.Do(ctx, append(args, "--json")...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), doc); err != nil {
		return fmt.Errorf("weft %s on %s: %w: %s", strings.Join(args, " "), n.Label(), err, out)
	}
	return nil
}

// Up starts the daemon with the host's own state directory and socket, and the given further arguments.
func (n *Node) Up(args ...string) error {
	argv := append([]string{
		n.program(), "up", "--name", n.Label(), "--state-dir", n.StateDir(), "--socket", n.Socket(),
	}, args...)
	p, err := n.Start(nettest.ProcessConfig{Name: "weft", Argv: argv})
	if err != nil {
		return err
	}
	n.process = p
	return nil
}

// Process returns the daemon that Up started last.
func (n *Node) Process() *nettest.Process { return n.process }

// Stop ends the daemon as an upgrade would.
func (n *Node) Stop() error { return n.process.Stop(Grace) }

// Attach joins a pod to the overlay and returns its addresses.
func (n *Node) Attach(ctx context.Context, pod *nettest.Pod, args ...string) ([]netip.Addr, error) {
	out, err := n.Do(ctx, append([]string{"attach", "--netns", pod.Path()}, args...)...)
	if err != nil {
		return nil, err
	}
	var addrs []netip.Addr
	for line := range strings.Lines(out) {
		p, err := netip.ParsePrefix(strings.TrimSpace(line))
		if err != nil {
			return nil, fmt.Errorf("weft attach on %s printed %q: %w", n.Label(), out, err)
		}
		addrs = append(addrs, p.Addr())
	}
	return addrs, nil
}

func (n *Node) program() string { return filepath.Join(n.bin, "weft") }

// GenerateSecret returns a new secret for a cluster: the line that "weft secret generate" prints. bin is the folder of the programs.
func GenerateSecret(ctx context.Context, bin string) (string, error) {
	out, err := exec.CommandContext(ctx, filepath.Join(bin, "weft"), "secret", "generate").CombinedOutput()
	text := strings.TrimSpace(string(out))
	if err != nil {
		return "", fmt.Errorf("weft secret generate: %w: %s", err, text)
	}
	return text, nil
}

// Ping sends one echo request from a namespace and waits up to a second for the answer.
func Ping(ctx context.Context, from *nettest.Space, to netip.Addr) error {
	_, err := from.Run(ctx, "ping", "-n", "-c", "1", "-W", "1", to.String())
	return err
}
