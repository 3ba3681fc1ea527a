// Package cluster runs weft daemons and weft commands on the hosts of a lab.
package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"weft/internal/nettest"
)

// Grace is the time that a daemon may take to end after SIGTERM, on a machine that is busy with other tests.
const Grace = 20 * time.Second

// Node is a host on which a daemon can run.
type Node struct {
	*nettest.Host
	bin     string
	process *nettest.Process
}

// NewNode returns a node on host, with the weft programs in the folder bin. It does not start a daemon.
func NewNode(host *nettest.Host, bin string) *Node { return &Node{Host: host, bin: bin} }

// Weft returns the command that runs weft with the given arguments on the node's host, against its daemon.
func (n *Node) Weft(ctx context.Context, args ...string) *exec.Cmd {
	cmd := n.Command(ctx, append([]string{n.program()}, args...)...)
	cmd.Env = append(cmd.Environ(), "WEFT_SOCKET="+n.Socket())
	return cmd
}

// Do runs a weft command and returns its output without line breaks at the end. The error contains the output, too.
func (n *Node) Do(ctx context.Context, args ...string) (string, error) {
	out, err := n.Weft(ctx, args...).CombinedOutput()
	text := strings.TrimRight(string(out), "\n")
	if err != nil {
		return text, fmt.Errorf("weft %s on %s: %w: %s", strings.Join(args, " "), n.Label(), err, text)
	}
	return text, nil
}

// Query runs a weft command with --json and decodes its output into doc.
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

// Up starts the daemon with the host's state directory and socket, and with additional arguments.
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

// Process returns the daemon that the last Up started, or nil.
func (n *Node) Process() *nettest.Process { return n.process }

// Stop stops the daemon with SIGTERM, as an upgrade does.
func (n *Node) Stop() error { return n.process.Stop(Grace) }

// Attach attaches a pod to the overlay and returns its addresses.
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

// GenerateSecret returns a new secret for a cluster: the output of "weft secret generate", from the program in folder bin.
func GenerateSecret(ctx context.Context, bin string) (string, error) {
	out, err := exec.CommandContext(ctx, filepath.Join(bin, "weft"), "secret", "generate").CombinedOutput()
	text := strings.TrimSpace(string(out))
	if err != nil {
		return "", fmt.Errorf("weft secret generate: %w: %s", err, text)
	}
	return text, nil
}

// Ping sends one echo request from a namespace and waits for the reply for up to a second.
func Ping(ctx context.Context, from *nettest.Space, to netip.Addr) error {
	_, err := from.Run(ctx, "ping", "-n", "-c", "1", "-W", "1", to.String())
	return err
}

// ExitCode returns the exit code of a program from the error of running it: 0 for nil, -1 if it did not run.
func ExitCode(err error) int {
	if err == nil {
		return 0
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	return -1
}
