// Package kube is the glue between weft and Kubernetes. It installs the CNI plugin on a node; what needs the API server
// is not here yet.
package kube

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

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

// Conflist returns the network configuration: weft, then portmap for host ports. socket is the daemon's.
func Conflist(socket string) ([]byte, error) {
	list := conflist{
		CNIVersion: "1.0.0", CNIVersions: []string{"1.0.0", "1.1.0"}, Name: "weft",
		Plugins: []map[string]any{
			{"type": PluginName, "socket": socket, "hairpin": true},
			{"type": "portmap", "capabilities": map[string]bool{"portMappings": true}, "snat": true},
		},
	}
	text, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("kube: conflist: %w", err)
	}
	return append(text, '\n'), nil
}

// InstallPlugin puts the program at source into folder dir as PluginName. A plugin that is running meanwhile goes on with
// its old content; no caller ever sees half of a file. It reports whether it had to write.
func InstallPlugin(source, dir string) (changed bool, err error) {
	program, err := os.ReadFile(source)
	if err != nil {
		return false, fmt.Errorf("kube: reading the plugin: %w", err)
	}
	return replaceFile(filepath.Join(dir, PluginName), program, 0o755)
}

// WriteConflist puts the conflist into folder dir. It tells the runtime, and the kubelet through it, that pods can
// have a network: it is the last thing to do, when that is true. It reports whether it had to write.
func WriteConflist(dir, socket string) (changed bool, err error) {
	text, err := Conflist(socket)
	if err != nil {
		return false, err
	}
	return replaceFile(filepath.Join(dir, ConflistName), text, 0o644)
}

// replaceFile gives path the content, by a rename within its folder; a file that has it already is left alone.
func replaceFile(path string, content []byte, mode fs.FileMode) (changed bool, err error) {
	info, statErr := os.Stat(path)
	if old, err := os.ReadFile(path); err == nil && statErr == nil && bytes.Equal(old, content) && info.Mode().Perm() == mode {
		return false, nil
	}
	if err := renameio.WriteFile(path, content, mode, renameio.WithStaticPermissions(mode)); err != nil {
		return false, fmt.Errorf("kube: writing %s: %w", path, err)
	}
	return true, nil
}
