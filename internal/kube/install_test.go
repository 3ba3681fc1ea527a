package kube

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
)

func TestInstallPlugin(t *testing.T) {
	dir := t.TempDir()
	source := filepath.Join(t.TempDir(), "weft-cni")
	for i, program := range []string{"one", "one", "two"} {
		if err := os.WriteFile(source, []byte(program), 0o600); err != nil {
			t.Fatal(err)
		}
		changed, err := (&Install{Plugin: source, BinDir: dir}).Plugins()
		if err != nil || (len(changed) > 0) != (i != 1) {
			t.Errorf("step %d: changed %v, %v", i, changed, err)
		}
		got, err := os.ReadFile(filepath.Join(dir, PluginName))
		if err != nil || !bytes.Equal(got, []byte(program)) {
			t.Errorf("step %d: installed %q, %v", i, got, err)
		}
	}
	info, err := os.Stat(filepath.Join(dir, PluginName))
	if err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestConflistLoads: the library of the runtimes loads the conflist.
func TestConflistLoads(t *testing.T) {
	dir := t.TempDir()
	if changed, err := (&Install{ConfDir: dir, Socket: "/run/weft/weft.sock"}).Configuration(); err != nil || !changed {
		t.Fatal(changed, err)
	}
	list, err := libcni.ConfListFromFile(filepath.Join(dir, ConflistName))
	if err != nil {
		t.Fatal(err)
	}
	if list.Name != "weft" || len(list.Plugins) != 2 || list.Plugins[0].Network.Type != PluginName || list.CNIVersion != "1.1.0" {
		t.Errorf("loaded %q, version %s, %d plugins", list.Name, list.CNIVersion, len(list.Plugins))
	}
	if changed, err := (&Install{ConfDir: dir, Socket: "/run/weft/weft.sock"}).Configuration(); err != nil || changed {
		t.Errorf("the second time: changed %v, %v", changed, err)
	}
	for _, names := range []bool{false, true} {
		text, err := (&Install{Socket: "/run/weft/weft.sock", Names: names}).Conflist()
		if err != nil || bytes.Contains(text, []byte(`"names": true`)) != names {
			t.Errorf("names %v: %s, %v", names, text, err)
		}
	}
}

func TestInstallNamesThePath(t *testing.T) {
	_, err := (&Install{ConfDir: "/no/such/folder", Socket: "x"}).Configuration()
	if err == nil || !strings.Contains(err.Error(), "/no/such/folder") {
		t.Errorf("error %v does not name the folder", err)
	}
	_, err = (&Install{Plugin: "/no/such/file", BinDir: t.TempDir()}).Plugins()
	if err == nil || !strings.Contains(err.Error(), "/no/such/file") {
		t.Errorf("error %v does not name the file", err)
	}
}

// TestOldPortmap: a portmap without support for the newest version stays, and a copy of the reference plugin is used instead.
func TestOldPortmap(t *testing.T) {
	i := &Install{Plugin: filepath.Join(t.TempDir(), "weft-cni"), BinDir: t.TempDir(), ConfDir: t.TempDir()}
	script := func(path, versions string) {
		text := "#!/bin/sh\necho '{\"supportedVersions\": [" + versions + "]}'\n"
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil { //nolint:gosec // a program
			t.Fatal(err)
		}
	}
	script(i.Plugin, "")
	script(filepath.Join(filepath.Dir(i.Plugin), "portmap"), `"1.1.0"`)
	host := filepath.Join(i.BinDir, "portmap")
	for _, c := range []struct{ versions, want string }{{`"0.4.0", "1.0.0"`, "weft-portmap"}, {`"1.0.0", "1.1.0"`, "portmap"}} {
		script(host, c.versions)
		before, _ := os.ReadFile(host)
		if _, err := i.Plugins(); err != nil {
			t.Fatal(err)
		}
		text, err := i.Conflist()
		if err != nil || !bytes.Contains(text, []byte(`"type": "`+c.want+`"`)) {
			t.Errorf("portmap with %s: %s, %v", c.versions, text, err)
		}
		if _, err := os.Stat(filepath.Join(i.BinDir, c.want)); err != nil {
			t.Error(err)
		}
		if after, _ := os.ReadFile(host); !bytes.Equal(before, after) {
			t.Error("the host's portmap has been changed")
		}
	}
}
