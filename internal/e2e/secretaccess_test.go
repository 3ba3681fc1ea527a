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
	"weft/mesh/seal"
)

// upAlone starts a node that cannot join other nodes, and waits until its daemon answers.
func upAlone(t *testing.T, n *cluster.Node, args ...string) {
	t.Helper()
	up(t, n, args...)
	do(t, n, "wait", "--for", "peers=1", "--timeout", patience.String())
}

// hasWarning waits until a node has a warning that contains all of the given parts.
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
		return fmt.Errorf("%s has no warning with %q: %q", n.Label(), parts, warnings)
	})
}

// requireNoSecretLogged fails the test if a node's log contains one of the secrets.
func requireNoSecretLogged(t *testing.T, n *cluster.Node, secrets ...string) {
	t.Helper()
	for _, s := range secrets {
		if logs := n.Process().Logs(); strings.Contains(logs, strings.TrimPrefix(s, "weft-secret-1 ")) {
			t.Errorf("%s logged a secret:\n%s", n.Label(), logs)
		}
	}
}

func TestBadSecretFilesAreRefused(t *testing.T) {
	t.Parallel()
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
		t.Error("a refused start created the state directory")
	}
}

// TestOnlyNodesWithACommonSecretJoin starts two nodes with the same secret, one with another secret and one without. Only
// the first two connect. Both sides warn about the reason.
func TestOnlyNodesWithACommonSecretJoin(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b", "other", "none")
	in, other, none := nodes[:2], nodes[2], nodes[3]
	const passphrase = "correct horse battery staple"
	secret := do(t, other, "secret", "generate")
	startSealed(t, in, passphrase)
	writeSecret(t, other, secret)
	upAlone(t, other, "--secret-file", secretFile(other), in[0].Addr().String())
	upAlone(t, none, in[0].Addr().String())

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
			t.Errorf("%s reports encrypted: %v", n.Label(), s.Encrypted)
		}
		requireNoSecretLogged(t, n, passphrase, secret)
	}
	// With one secret in common, the node joins, although its first secret differs.
	writeSecret(t, other, secret, passphrase)
	do(t, other, "reload")
	waitState(t, in[1], "other", api.PeerAlive)
	waitState(t, other, "b", api.PeerAlive)
	requireNoSecretLogged(t, other, passphrase, secret)
}

// TestGossipIsSealed: the nickname of a node occurs in no packet. Without a secret everyone can open the gossip, with the key that
// such nodes have, and with a secret nothing opens with that key.
func TestGossipIsSealed(t *testing.T) {
	t.Parallel()
	const nickname = "a-nickname-that-is-seen-from-afar"
	known, err := seal.Derive([seal.KeyLen]byte{}, "weft")
	if err != nil {
		t.Fatal(err)
	}
	for _, sealed := range []bool{false, true} {
		t.Run(fmt.Sprint("sealed ", sealed), func(t *testing.T) {
			nodes := newNodes(t, "a", "b")
			args := []string{"--name", nickname}
			if sealed {
				secret := do(t, nodes[0], "secret", "generate")
				for _, n := range nodes {
					writeSecret(t, n, secret)
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
			var packets, named, opened atomic.Int64
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
					if d, ok := (packet{frame: buf[:n]}).udp(); ok && d.to.Port() == gossipPort {
						if _, _, _, _, err := seal.Open([]*seal.Keys{known}, d.payload); err == nil {
							opened.Add(1)
						}
					}
				}
			})
			for _, n := range nodes {
				more := append([]string{}, args...)
				if sealed {
					more = append(more, "--secret-file", secretFile(n))
				}
				up(t, n, append(more, others(nodes, n)...)...)
			}
			waitReady(t, nodes)
			do(t, nodes[0], "ip", "allocate", "x") // causes gossip of the allocators
			if err := capture.Close(); err != nil {
				t.Fatal(err)
			}
			reader.Wait()
			if packets.Load() == 0 || named.Load() > 0 || (opened.Load() == 0) != sealed {
				t.Errorf("of %d packets, the nickname is in %d, and %d open without a secret", packets.Load(), named.Load(), opened.Load())
			}
		})
	}
}

// watchAlive polls the peers of all nodes until the returned function is called. The test fails if a node ever reports
// another one as not alive.
func watchAlive(t *testing.T, nodes []*cluster.Node) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(testContext(t))
	var watchers sync.WaitGroup
	var polls atomic.Int64
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
				polls.Add(1)
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
		if polls.Load() < int64(len(nodes)) {
			t.Error("the peers were not polled")
		}
	}
}

// TestSecretIsReplacedWithoutAnOutage replaces the secret of three nodes, one node after another.
func TestSecretIsReplacedWithoutAnOutage(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b", "c")
	first, second := do(t, nodes[0], "secret", "generate"), do(t, nodes[0], "secret", "generate")
	startSealed(t, nodes, first)
	stop := watchAlive(t, nodes)
	for i, n := range nodes {
		writeSecret(t, n, second, first)
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
		writeSecret(t, n, second)
		if err := n.Process().Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		labtest.Until(t, patience, func() error {
			if s := query[api.Status](t, n, "status"); s.Secrets != 1 {
				return fmt.Errorf("%s has %d secrets after SIGHUP", n.Label(), s.Secrets)
			}
			return nil
		})
	}
	late := cluster.NewNode(labtest.AddHost(t, nodes[0].Lab(), "late"), bin)
	writeSecret(t, late, second)
	up(t, late, "--secret-file", secretFile(late), "--init-peers", "0", nodes[1].Addr().String())
	waitReady(t, append(nodes, late))
	stop()
	stale := cluster.NewNode(labtest.AddHost(t, nodes[0].Lab(), "stale"), bin)
	writeSecret(t, stale, first)
	upAlone(t, stale, "--secret-file", secretFile(stale), nodes[1].Addr().String())
	hasWarning(t, stale, "another secret")
	for _, n := range append(nodes, late, stale) {
		requireNoSecretLogged(t, n, first, second)
	}
}

// TestBadReloadChangesNothing: a reload with an invalid secret file fails, and the node keeps its secret.
func TestBadReloadChangesNothing(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b")
	secret := do(t, nodes[0], "secret", "generate")
	startSealed(t, nodes, secret)
	stop := watchAlive(t, nodes)
	for _, line := range []string{"short", secret[:30], ""} {
		writeSecret(t, nodes[0], line)
		out, err := nodes[0].Weft(testContext(t), "reload").CombinedOutput()
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok || exit.ExitCode() != 1 || !strings.Contains(string(out), secretFile(nodes[0])) || !strings.Contains(string(out), "hint: ") {
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
	up(t, nodes[1], "--secret-file", secretFile(nodes[1]), nodes[0].Addr().String()) // the first node still has the old secret
	waitReady(t, nodes)
}
