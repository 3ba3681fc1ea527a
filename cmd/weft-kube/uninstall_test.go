package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weft/internal/nettest"
	"weft/internal/nettest/labtest"
)

// TestUninstallHost: "weft-kube uninstall --host" leaves nothing of weft on a host, notes what it found, and may run again.
func TestUninstallHost(t *testing.T) {
	h := labtest.AddHost(t, labtest.New(t, nettest.Config{}), "host")
	dir := t.TempDir()
	for _, path := range []string{
		"bin/weft", "bin/weft-portmap", "bin/loopback", "bin/bridge", "image/weft-cni", "image/loopback", "conf/10-weft.conflist",
		"state/node.key", "state/kube/x", "run/kube.lock",
	} {
		path = filepath.Join(dir, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for _, line := range []string{
		"ip link add weave type bridge", "ip link set weave alias weft", "ip link add vweftabc type veth peer name p0",
		"ip link set vweftabc master weave", "nft add table inet weft-policy",
	} {
		labtest.Run(t, h.Space, strings.Fields(line)...)
	}
	note := filepath.Join(dir, "note")
	uninstall := func(runDir string) error {
		root := newRootCommand()
		root.SetArgs([]string{
			"uninstall", "--host", "--bin-dir", filepath.Join(dir, "bin"), "--conf-dir", filepath.Join(dir, "conf"),
			"--plugin", filepath.Join(dir, "image/weft-cni"), "--state-dir", filepath.Join(dir, "state"), "--run-dir", runDir,
			"--message-file", note,
		})
		return h.Do(root.Execute)
	}
	for range 2 {
		if err := uninstall(filepath.Join(dir, "run")); err != nil {
			t.Fatal(err)
		}
		var left []string
		for _, pattern := range []string{"bin/*", "conf/*", "state", "run"} {
			found, _ := filepath.Glob(filepath.Join(dir, pattern))
			left = append(left, found...)
		}
		if len(left) != 1 || filepath.Base(left[0]) != "bridge" {
			t.Errorf("left: %v", left)
		}
		kernel := labtest.Run(t, h.Space, "ip", "-brief", "link") + labtest.Run(t, h.Space, "nft", "list", "tables")
		if strings.Contains(kernel, "we") {
			t.Errorf("left: %s", kernel)
		}
	}
	if text, err := os.ReadFile(note); err != nil || string(text) != "1 pod lost the network, and must be deleted" {
		t.Errorf("note %q, %v", text, err)
	}
}
