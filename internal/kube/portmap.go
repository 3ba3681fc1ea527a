package kube

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// newestVersion is the newest version of the CNI specification that the configuration offers.
const newestVersion = "1.1.0"

// Names of the plugin for host ports: that of the reference plugin, and that of weft's copy of it on hosts with an old one.
const (
	referencePortmap = "portmap"
	ownPortmap       = "weft-portmap"
)

// portmapProbe caches whether the host's portmap supports newestVersion. The result is valid while the file is unchanged.
type portmapProbe struct {
	mu        sync.Mutex
	size      int64     // guarded by mu
	mod       time.Time // guarded by mu
	supported bool      // guarded by mu
}

// portmapType returns the name of the portmap to use. A runtime calls all plugins of a list with one version of the
// specification. With a portmap that lacks the newest version, each pod would fail under runtimes that choose it.
func (i *Install) portmapType() string {
	path := filepath.Join(i.BinDir, referencePortmap)
	info, err := os.Stat(path)
	if err != nil {
		return referencePortmap // Plugins installs it
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(i.Plugin), referencePortmap)); err != nil {
		return referencePortmap // weft has no copy
	}
	i.portmap.mu.Lock()
	defer i.portmap.mu.Unlock()
	if i.portmap.size != info.Size() || !i.portmap.mod.Equal(info.ModTime()) {
		i.portmap.size, i.portmap.mod, i.portmap.supported = info.Size(), info.ModTime(), supportsNewest(path)
	}
	if i.portmap.supported {
		return referencePortmap
	}
	return ownPortmap
}

// supportsNewest runs a plugin's VERSION command and reports whether it supports newestVersion. It returns false for a program
// that cannot run in this container, for example because it needs libraries of the host.
func supportsNewest(path string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path)
	cmd.Env = append(os.Environ(), "CNI_COMMAND=VERSION")
	cmd.Stdin = strings.NewReader(`{"cniVersion": "` + newestVersion + `"}`)
	out, err := cmd.Output()
	var answer struct {
		SupportedVersions []string `json:"supportedVersions"`
	}
	return err == nil && json.Unmarshal(out, &answer) == nil && slices.Contains(answer.SupportedVersions, newestVersion)
}
