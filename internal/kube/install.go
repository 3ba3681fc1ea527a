// Package kube is the part of weft on a Kubernetes node that is not in the daemon: an Agent that installs the CNI plugin,
// gives the daemon the addresses of the other nodes, reclaims the address space of deleted nodes, and enforces network
// policies.
//
//	API server --> cluster --> enforcer --> firewall          policies (package policy compiles them)
//	                  |           ^ admission of new pods by the plugin
//	                  +------> nodes --> daemon                targets, reclaim; the node's condition back to the API server
//	daemon, policies in force --> install --> /etc/cni/net.d  last, when a pod can be added
//	daemon --> conditions --> API server                      events of the Node
//
// While the API server does not answer, rules, targets and pods stay as they are.
package kube

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/renameio/v2"

	"weft/internal/api"
)

// ConflistName is the file in the runtime's configuration folder that makes weft the network of pods. Runtimes take the
// first file in alphabetical order.
const ConflistName = "10-weft.conflist"

// PluginName is the plugin's file name, and its type in the conflist.
const PluginName = "weft"

// conflist is a CNI network configuration list. Runtimes without support for version 1.1.0, such as containerd 1.6, refuse a
// list that names only this version. So cniVersion is a version that all runtimes support, and cniVersions offers the newer
// one.
type conflist struct {
	CNIVersion  string           `json:"cniVersion"`
	CNIVersions []string         `json:"cniVersions"`
	Name        string           `json:"name"`
	Plugins     []map[string]any `json:"plugins"`
}

// Install writes the plugin and its configuration to the folders of the container runtime. Its methods may be called
// concurrently. An Install must not be copied.
type Install struct {
	// Plugin is the path of the plugin's program. Its folder may also hold reference plugins (portmap, loopback), which are
	// installed only where BinDir has none: existing files are not replaced.
	Plugin string
	// BinDir and ConfDir are the runtime's folders of plugins and configurations.
	BinDir, ConfDir string
	// Socket is the path of the daemon's socket, as runtimes on the host see it. Policy is that of the agent's socket; it is
	// empty where policies are not enforced.
	Socket, Policy string
	// Guard is what pods may send; empty: as the daemon's --guard says.
	Guard api.GuardMode
	// Names gives containers names in the overlay, and the name server of their node.
	Names bool

	portmap portmapProbe
	mu      sync.Mutex
	copied  map[string]fileStates // guarded by mu; source and target after the last copy, by name
}

// referencePlugins are plugins that weft's configuration or the runtimes need.
var referencePlugins = []string{referencePortmap, "loopback"}

// Conflist returns the network configuration: weft, then portmap for host ports.
func (i *Install) Conflist() ([]byte, error) {
	weft := map[string]any{
		"type": PluginName, "socket": i.Socket, "hairpin": true,
		"capabilities": map[string]bool{"ips": true, "mac": true},
	}
	if i.Policy != "" {
		weft["policy"] = i.Policy
	}
	if i.Guard != "" {
		weft["guard"] = i.Guard
	}
	if i.Names {
		weft["names"] = true
	}
	list := conflist{
		CNIVersion: "1.0.0", CNIVersions: []string{"1.0.0", newestVersion}, Name: "weft",
		Plugins: []map[string]any{weft, {"type": i.portmapType(), "capabilities": map[string]bool{"portMappings": true}, "snat": true}},
	}
	text, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("kube: conflist: %w", err)
	}
	return append(text, '\n'), nil
}

// Plugins copies the plugin to BinDir, and the reference plugins that are missing there. Files are replaced as a whole, so a
// running plugin keeps its old content. Where the host's portmap is too old, a copy of weft's is installed beside it. It
// returns the names of the files that it wrote.
func (i *Install) Plugins() (changed []string, err error) {
	wrote, err := i.copyProgram(i.Plugin, PluginName)
	if err != nil {
		return nil, err
	}
	if wrote {
		changed = append(changed, PluginName)
	}
	for _, name := range referencePlugins {
		if _, err := os.Stat(filepath.Join(i.BinDir, name)); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if wrote, err = i.copyReference(name, name); err != nil {
			return changed, err
		} else if wrote {
			changed = append(changed, name)
		}
	}
	if i.portmapType() == ownPortmap {
		if wrote, err = i.copyReference(referencePortmap, ownPortmap); err != nil {
			return changed, err
		} else if wrote {
			changed = append(changed, ownPortmap)
		}
	}
	return changed, nil
}

// copyReference copies a reference plugin to BinDir under the name as, if the folder of Plugin has it.
func (i *Install) copyReference(name, as string) (wrote bool, err error) {
	wrote, err = i.copyProgram(filepath.Join(filepath.Dir(i.Plugin), name), as)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // the host must provide it
	}
	return wrote, err
}

// copyProgram copies a program to BinDir under a name. It reads neither file if both are unchanged since the last copy.
func (i *Install) copyProgram(source, name string) (wrote bool, err error) {
	target := filepath.Join(i.BinDir, name)
	i.mu.Lock()
	defer i.mu.Unlock()
	if done, ok := i.copied[name]; ok && done == statesOf(source, target) {
		return false, nil
	}
	program, err := os.ReadFile(source)
	if err != nil {
		return false, fmt.Errorf("kube: reading a plugin: %w", err)
	}
	if wrote, err = replaceFile(target, program, 0o755); err != nil {
		return false, err
	}
	if i.copied == nil {
		i.copied = map[string]fileStates{}
	}
	i.copied[name] = statesOf(source, target)
	return wrote, nil
}

// fileStates has the size, time and mode of two files, to find out whether either has changed. A missing file has the zero
// state.
type fileStates [2]struct {
	size int64
	mod  time.Time
	mode fs.FileMode
}

func statesOf(source, target string) (s fileStates) {
	for i, path := range []string{source, target} {
		if info, err := os.Stat(path); err == nil {
			s[i].size, s[i].mod, s[i].mode = info.Size(), info.ModTime(), info.Mode()
		}
	}
	return s
}

// Configuration writes the conflist to ConfDir, and reports whether it changed. With this file the runtime reports to the
// kubelet that the network is ready, so it must be written last, when pods can be added.
func (i *Install) Configuration() (changed bool, err error) {
	text, err := i.Conflist()
	if err != nil {
		return false, err
	}
	return replaceFile(filepath.Join(i.ConfDir, ConflistName), text, 0o644)
}

// Remove removes first the configuration, then the plugin. Reference plugins stay: other networks may use them.
func (i *Install) Remove() error {
	for _, path := range []string{
		filepath.Join(i.ConfDir, ConflistName), filepath.Join(i.BinDir, ownPortmap), filepath.Join(i.BinDir, PluginName),
	} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("kube: %w", err)
		}
	}
	return nil
}

// Installed returns nil if plugin and configuration are there, else an error that names the missing file.
func (i *Install) Installed() error {
	for _, path := range []string{filepath.Join(i.BinDir, PluginName), filepath.Join(i.ConfDir, ConflistName)} {
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("kube: %w", err)
		}
	}
	return nil
}

// replaceJSON writes v as JSON to path, readable for this user only.
func replaceJSON(path string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("kube: writing %s: %w", path, err)
	}
	_, err = replaceFile(path, text, 0o600)
	return err
}

// replaceFile replaces the file at path by a rename within its folder, and reports whether it did. A file that has the
// content and mode already stays.
func replaceFile(path string, content []byte, mode fs.FileMode) (changed bool, err error) {
	info, statErr := os.Stat(path)
	if old, err := os.ReadFile(path); err == nil && statErr == nil && bytes.Equal(old, content) && info.Mode().Perm() == mode {
		return false, nil
	}
	// The temporary file is in the same folder, whatever TMPDIR is: containerd 1.6 reads its configuration again when a file of
	// the folder is renamed, but not when a file is moved into it.
	options := []renameio.Option{renameio.WithStaticPermissions(mode), renameio.WithTempDir(filepath.Dir(path))}
	if err := renameio.WriteFile(path, content, mode, options...); err != nil {
		return false, fmt.Errorf("kube: writing %s: %w", path, err)
	}
	return true, nil
}
