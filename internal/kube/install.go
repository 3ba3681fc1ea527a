// Package kube is what a Kubernetes node needs beside the daemon: an Agent that installs the CNI plugin, tells the daemon of the
// other nodes, has the address space of deleted ones reclaimed, and enforces network policies.
//
//	API server ──> cluster ──> enforcer ──> firewall          policies (package policy compiles them)
//	                  │           ^ admission of new pods by the plugin
//	                  └──────> nodes ──> daemon                targets, reclaim; the node's condition back to the API server
//	daemon, policies in force ──> install ──> /etc/cni/net.d  last, when a pod could be added
//
// Nothing ends because the API server is away: what was in force stays so.
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
)

// ConflistName is the file in the runtime's configuration folder that makes weft the network of pods. Runtimes take the
// first file in alphabetical order.
const ConflistName = "10-weft.conflist"

// PluginName is the plugin's file name, and its type in the conflist.
const PluginName = "weft"

// conflist is a CNI network configuration list. Runtimes that do not know version 1.1.0, such as containerd 1.6, refuse
// a list that names it alone: cniVersion is what all take, cniVersions what the others may choose.
type conflist struct {
	CNIVersion  string           `json:"cniVersion"`
	CNIVersions []string         `json:"cniVersions"`
	Name        string           `json:"name"`
	Plugins     []map[string]any `json:"plugins"`
}

// Install says where the plugin and its configuration go.
type Install struct {
	// Plugin is the program of the plugin. Beside it may be reference plugins (portmap, loopback), which are installed where there
	// are none: those of others are left alone.
	Plugin string
	// BinDir and ConfDir are the runtime's folders of plugins and configurations.
	BinDir, ConfDir string
	// Socket is the daemon's, as runtimes on the host see it; Policy that of the agent, empty where policies are not enforced.
	Socket, Policy string

	portmap probed // what is known of the host's portmap
	mu      sync.Mutex
	copied  map[string]looks // guarded by mu; how source and target looked after the last copy, by name
}

// referencePlugins are plugins that weft's configuration, or any runtime, wants.
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

// Plugins puts the plugin into BinDir, and reference plugins that are missing there. A plugin that is running meanwhile goes on
// with its old content; no caller ever sees half of a file. Where the host has a portmap that is too old there is one of our own
// beside it. It returns the names of those that it had to write.
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

// copyReference puts a reference plugin into BinDir under a name, if there is one beside Plugin.
func (i *Install) copyReference(name, as string) (wrote bool, err error) {
	wrote, err = i.copyProgram(filepath.Join(filepath.Dir(i.Plugin), name), as)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // the host has to have its own
	}
	return wrote, err
}

// copyProgram puts a program into BinDir under a name. Files that look as they did when it was last done are not read again.
func (i *Install) copyProgram(source, name string) (wrote bool, err error) {
	target := filepath.Join(i.BinDir, name)
	i.mu.Lock()
	defer i.mu.Unlock()
	if done, ok := i.copied[name]; ok && done == looksOf(source, target) {
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
		i.copied = map[string]looks{}
	}
	i.copied[name] = looksOf(source, target)
	return wrote, nil
}

// looks tells whether two files are what they were.
type looks [2]struct {
	size int64
	mod  time.Time
	mode fs.FileMode
}

func looksOf(paths ...string) (l looks) {
	for i, path := range paths {
		if info, err := os.Stat(path); err == nil {
			l[i].size, l[i].mod, l[i].mode = info.Size(), info.ModTime(), info.Mode()
		}
	}
	return l
}

// Configuration puts the conflist into ConfDir. It tells the runtime, and the kubelet through it, that pods can
// have a network: it is the last thing to do, when that is true. It reports whether it had to write.
func (i *Install) Configuration() (changed bool, err error) {
	text, err := i.Conflist()
	if err != nil {
		return false, err
	}
	return replaceFile(filepath.Join(i.ConfDir, ConflistName), text, 0o644)
}

// Remove removes the configuration, first, and the plugin; what others may use stays.
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

// Installed returns an error that says what is missing, and nil if runtimes use the plugin.
func (i *Install) Installed() error {
	for _, path := range []string{filepath.Join(i.BinDir, PluginName), filepath.Join(i.ConfDir, ConflistName)} {
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("kube: %w", err)
		}
	}
	return nil
}

// replaceJSON gives path v as its content, for this user alone.
func replaceJSON(path string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("kube: writing %s: %w", path, err)
	}
	_, err = replaceFile(path, text, 0o600)
	return err
}

// replaceFile gives path the content, by a rename within its folder; a file that has it already is left alone.
func replaceFile(path string, content []byte, mode fs.FileMode) (changed bool, err error) {
	info, statErr := os.Stat(path)
	if old, err := os.ReadFile(path); err == nil && statErr == nil && bytes.Equal(old, content) && info.Mode().Perm() == mode {
		return false, nil
	}
	// From a file in the same folder, whatever TMPDIR says: containerd 1.6 looks at its configuration when a file of the folder is
	// renamed, not when one appears in it.
	options := []renameio.Option{renameio.WithStaticPermissions(mode), renameio.WithTempDir(filepath.Dir(path))}
	if err := renameio.WriteFile(path, content, mode, options...); err != nil {
		return false, fmt.Errorf("kube: writing %s: %w", path, err)
	}
	return true, nil
}
