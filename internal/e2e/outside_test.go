package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"weft/internal/api"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
)

// secretPath returns the path of a node's secret file.
func secretPath(n *cluster.Node) string { return filepath.Join(n.Dir(), "secret") }

// setSecret writes a node's secret file, a line for each secret.
func setSecret(t *testing.T, n *cluster.Node, lines ...string) {
	t.Helper()
	if err := os.WriteFile(secretPath(n), []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// startWithSecret starts nodes with the given secrets that all know each other, and waits until they are one network.
func startWithSecret(t *testing.T, nodes []*cluster.Node, lines ...string) {
	t.Helper()
	for _, n := range nodes {
		setSecret(t, n, lines...)
		up(t, n, append([]string{"--secret-file", secretPath(n)}, others(nodes, n)...)...)
	}
	waitReady(t, nodes)
}

// upOutside starts a node that will be alone, and waits until it answers.
func upOutside(t *testing.T, n *cluster.Node, args ...string) {
	t.Helper()
	up(t, n, args...)
	do(t, n, "wait", "--for", "peers=1", "--timeout", patience.String())
}

// hasWarning waits until the status of a node has a warning with all of the given parts.
func hasWarning(t *testing.T, n *cluster.Node, parts ...string) {
	t.Helper()
	labtest.Until(t, patience, func() error {
		warnings := query[api.Status](t, n, "status").Warnings
		for _, w := range warnings {
			found := true
			for _, p := range parts {
				found = found && strings.Contains(w, p)
			}
			if found {
				return nil
			}
		}
		return fmt.Errorf("%s warns of nothing with %q: %q", n.Label(), parts, warnings)
	})
}

// logsNo fails where a node's log has a secret in it.
func logsNo(t *testing.T, n *cluster.Node, secrets ...string) {
	t.Helper()
	for _, s := range secrets {
		if logs := n.Process().Logs(); strings.Contains(logs, strings.TrimPrefix(s, "weft-secret-1 ")) {
			t.Errorf("%s logged a secret:\n%s", n.Label(), logs)
		}
	}
}

func TestBadSecretFilesAreRefused(t *testing.T) {
	n := newNodes(t, "a")[0]
	good := do(t, n, "secret", "generate")
	write := func(name, text string, mode fs.FileMode) string {
		path := filepath.Join(t.TempDir(), name)
		if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, path := range []string{
		"/no/such/file", t.TempDir(), write("empty", "", 0o600), write("blank", " \r\n\n", 0o600), write("short", "password", 0o600),
		write("cut", good[:len(good)-1], 0o600), write("binary", good+"\n\xff\x00", 0o600), write("twice", good+"\n"+good, 0o600),
		write("open", good, 0o644), write("group", good, 0o660), write("large", strings.Repeat("\n", 1<<17)+good, 0o600),
	} {
		t.Run(filepath.Base(path), func(t *testing.T) {
			refused(t, n, nil, "--secret-file: "+path, "--secret-file", path)
			refused(t, n, []string{"WEFT_SECRET_FILE=" + path}, path)
		})
	}
	if _, err := os.Stat(n.StateDir()); err == nil {
		t.Error("a refused start made the state directory")
	}
}

// TestOnlyACommonSecretLetsIn starts two nodes with a secret, one with another and one without: the first two meet, the
// others stay outside, and both sides say why.
func TestOnlyACommonSecretLetsIn(t *testing.T) {
	nodes := newNodes(t, "a", "b", "other", "none")
	in, other, none := nodes[:2], nodes[2], nodes[3]
	const passphrase = "correct horse battery staple"
	secret := do(t, other, "secret", "generate")
	startWithSecret(t, in, passphrase)
	setSecret(t, other, secret)
	upOutside(t, other, "--secret-file", secretPath(other), in[0].Addr().String())
	upOutside(t, none, in[0].Addr().String())

	hasWarning(t, other, "Target "+in[0].Addr().String(), "another secret", "--secret-file")
	hasWarning(t, none, "Target "+in[0].Addr().String(), "this node has none", "--secret-file")
	hasWarning(t, none, "not encrypted", "weft secret generate")
	hasWarning(t, in[0], other.Addr().String(), "another secret", "--secret-file")
	hasWarning(t, in[0], none.Addr().String(), "has no secret", "--secret-file")
	for _, n := range nodes {
		want := map[bool]int{true: 2, false: 1}[n == in[0] || n == in[1]]
		if peers := query[[]api.Peer](t, n, "peers"); len(peers) != want {
			t.Errorf("%s knows %d nodes, want %d: %+v", n.Label(), len(peers), want, peers)
		}
		if s := query[api.Status](t, n, "status"); s.Encrypted != (n != none) {
			t.Errorf("%s says encrypted: %v", n.Label(), s.Encrypted)
		}
		logsNo(t, n, passphrase, secret)
	}
	// A line in common, and it is let in, whatever else it has.
	setSecret(t, other, secret, passphrase)
	do(t, other, "reload")
	waitState(t, in[1], "other", api.PeerAlive)
	waitState(t, other, "b", api.PeerAlive)
	logsNo(t, other, passphrase, secret)
}

// TestGossipIsSealed looks for the nickname of a node in what it sends.
func TestGossipIsSealed(t *testing.T) {
	const nickname = "a-nickname-that-is-seen-from-afar"
	for _, sealed := range []bool{false, true} {
		t.Run(fmt.Sprint("sealed ", sealed), func(t *testing.T) {
			nodes := newNodes(t, "a", "b")
			args := []string{"--name", nickname}
			if sealed {
				secret := do(t, nodes[0], "secret", "generate")
				for _, n := range nodes {
					setSecret(t, n, secret)
				}
			}
			var capture *os.File
			err := nodes[1].Space.Do(func() (err error) {
				capture, err = openCapture("eth0")
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			var packets, named atomic.Int64
			var reader sync.WaitGroup
			reader.Go(func() {
				buf := make([]byte, 1<<17)
				for {
					n, err := capture.Read(buf)
					if err != nil {
						return
					}
					packets.Add(1)
					if bytes.Contains(buf[:n], []byte(nickname)) {
						named.Add(1)
					}
				}
			})
			for _, n := range nodes {
				more := append([]string{}, args...)
				if sealed {
					more = append(more, "--secret-file", secretPath(n))
				}
				up(t, n, append(more, others(nodes, n)...)...)
			}
			waitReady(t, nodes)
			do(t, nodes[0], "ip", "allocate", "x") // gossip of the allocators goes the same way
			if err := capture.Close(); err != nil {
				t.Fatal(err)
			}
			reader.Wait()
			if packets.Load() == 0 || (named.Load() == 0) != sealed {
				t.Errorf("the nickname is in %d of %d packets", named.Load(), packets.Load())
			}
		})
	}
}

// watchAlive looks at the peers of all nodes again and again; the function that it returns ends that and fails the test
// where one of them was ever not alive to another.
func watchAlive(t *testing.T, nodes []*cluster.Node) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(testContext(t))
	var watchers sync.WaitGroup
	var looks atomic.Int64
	for _, n := range nodes {
		watchers.Go(func() {
			for ctx.Err() == nil {
				var peers []api.Peer
				if err := n.Query(ctx, &peers, "peers"); err != nil {
					if ctx.Err() == nil {
						t.Error(err)
					}
					return
				}
				looks.Add(1)
				for _, p := range peers {
					if p.State != api.PeerAlive {
						t.Errorf("%s sees %s as %s", n.Label(), p.Name, p.State)
						return
					}
				}
			}
		})
	}
	return func() {
		t.Helper()
		cancel()
		watchers.Wait()
		if looks.Load() < int64(len(nodes)) {
			t.Error("nobody looked")
		}
	}
}

// TestSecretIsReplacedWithoutAnOutage takes three nodes from one secret to another, node after node.
func TestSecretIsReplacedWithoutAnOutage(t *testing.T) {
	nodes := newNodes(t, "a", "b", "c")
	first, second := do(t, nodes[0], "secret", "generate"), do(t, nodes[0], "secret", "generate")
	startWithSecret(t, nodes, first)
	stop := watchAlive(t, nodes)
	for i, n := range nodes {
		setSecret(t, n, second, first)
		if out := do(t, n, "reload"); !strings.Contains(out, "--secret-file") || !strings.Contains(out, "secrets in use: 2") {
			t.Errorf("weft reload on %s printed %q", n.Label(), out)
		}
		if i == 0 {
			hasWarning(t, n, "first line", "b (", "c (")
		}
	}
	for _, n := range nodes {
		labtest.Until(t, patience, func() error {
			if s := query[api.Status](t, n, "status"); !s.Droppable || s.Secrets != 2 || len(s.Warnings) > 0 {
				return fmt.Errorf("%s: %d secrets, the old one may be dropped: %v; %q", n.Label(), s.Secrets, s.Droppable, s.Warnings)
			}
			return nil
		})
	}
	for _, n := range []*cluster.Node{nodes[2], nodes[0], nodes[1]} {
		setSecret(t, n, second)
		if err := n.Process().Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		labtest.Until(t, patience, func() error {
			if s := query[api.Status](t, n, "status"); s.Secrets != 1 {
				return fmt.Errorf("%s has %d secrets after a hang-up", n.Label(), s.Secrets)
			}
			return nil
		})
	}
	late := cluster.NewNode(labtest.AddHost(t, nodes[0].Lab(), "late"), bin)
	setSecret(t, late, second)
	up(t, late, "--secret-file", secretPath(late), "--init-peers", "0", nodes[1].Addr().String())
	waitReady(t, append(nodes, late))
	stop()
	stale := cluster.NewNode(labtest.AddHost(t, nodes[0].Lab(), "stale"), bin)
	setSecret(t, stale, first)
	upOutside(t, stale, "--secret-file", secretPath(stale), nodes[1].Addr().String())
	hasWarning(t, stale, "another secret")
	for _, n := range append(nodes, late, stale) {
		logsNo(t, n, first, second)
	}
}

// TestBadReloadChangesNothing breaks the secret file of a running node.
func TestBadReloadChangesNothing(t *testing.T) {
	nodes := newNodes(t, "a", "b")
	secret := do(t, nodes[0], "secret", "generate")
	startWithSecret(t, nodes, secret)
	stop := watchAlive(t, nodes)
	for _, line := range []string{"short", secret[:30], ""} {
		setSecret(t, nodes[0], line)
		out, err := nodes[0].Weft(testContext(t), "reload").CombinedOutput()
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok || exit.ExitCode() != 1 || !strings.Contains(string(out), secretPath(nodes[0])) || !strings.Contains(string(out), "hint: ") {
			t.Errorf("reload with %q: %v, want exit code 1, the file's name and a hint:\n%s", line, err, out)
		}
	}
	if s := query[api.Status](t, nodes[0], "status"); s.Secrets != 1 || !s.Encrypted {
		t.Errorf("%d secrets, encrypted %v", s.Secrets, s.Encrypted)
	}
	stop()
	if err := nodes[1].Stop(); err != nil {
		t.Fatal(err)
	}
	up(t, nodes[1], "--secret-file", secretPath(nodes[1]), nodes[0].Addr().String()) // it meets the old secret still
	waitReady(t, nodes)
}
