package kube

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weft/internal/hint"
)

// put writes a file with its folders.
func put(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
}

func present(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// TestRemoveReferences: of the reference plugins, copies of weft that no other network uses are removed.
func TestRemoveReferences(t *testing.T) {
	dir := t.TempDir()
	image, bin, conf := filepath.Join(dir, "image"), filepath.Join(dir, "bin"), filepath.Join(dir, "conf")
	i := &Install{Plugin: filepath.Join(image, "weft-cni"), BinDir: bin, ConfDir: conf}
	if err := i.RemoveReferences(); err != nil {
		t.Errorf("without plugins: %v", err)
	}
	put(t, filepath.Join(image, "portmap"), "portmap of weft")
	put(t, filepath.Join(image, "loopback"), "loopback of weft")
	put(t, filepath.Join(bin, "portmap"), "portmap of weft")
	put(t, filepath.Join(bin, "loopback"), "loopback of the host")
	put(t, filepath.Join(conf, ConflistName), `{"type": "portmap"}`)
	put(t, filepath.Join(conf, "10-other.conflist"), `{"type": "portmap"}`)
	if err := i.RemoveReferences(); err != nil || !present(filepath.Join(bin, "portmap")) {
		t.Errorf("%v; a plugin of another network is gone: %v", err, !present(filepath.Join(bin, "portmap")))
	}
	if err := os.Remove(filepath.Join(conf, "10-other.conflist")); err != nil {
		t.Fatal(err)
	}
	if err := i.RemoveReferences(); err != nil || present(filepath.Join(bin, "portmap")) || !present(filepath.Join(bin, "loopback")) {
		t.Errorf("%v; portmap is there: %v, loopback of the host: %v", err, present(filepath.Join(bin, "portmap")),
			present(filepath.Join(bin, "loopback")))
	}
}

// TestRemoveStateDir: a folder that is no state directory stays.
func TestRemoveStateDir(t *testing.T) {
	dir := t.TempDir()
	state, other := filepath.Join(dir, "weft"), filepath.Join(dir, "other")
	put(t, filepath.Join(state, "node.key"), "key")
	put(t, filepath.Join(state, "kube", "x"), "x")
	put(t, filepath.Join(other, "data"), "data")
	for range 2 {
		if err := RemoveStateDir(state); err != nil || present(state) {
			t.Errorf("%v; it is there: %v", err, present(state))
		}
	}
	err := RemoveStateDir(other)
	if advice, _ := hint.Of(err); err == nil || advice == "" || !present(filepath.Join(other, "data")) {
		t.Errorf("another folder: %v", err)
	}
}

// TestRefuseRunning: a socket that accepts connections is a daemon that runs, one that was left behind is none.
func TestRefuseRunning(t *testing.T) {
	path := filepath.Join(t.TempDir(), "weft.sock")
	if err := RefuseRunning(path); err != nil {
		t.Errorf("no socket: %v", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := RefuseRunning(path); err == nil || !strings.Contains(err.Error(), "still runs") {
		t.Errorf("a daemon: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := RefuseRunning(path); err != nil {
		t.Errorf("a socket without a daemon: %v", err)
	}
}
