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

// Names of the plugin for host ports: the reference's, and that of a copy of it beside one that is too old.
const (
	referencePortmap = "portmap"
	ownPortmap       = "weft-portmap"
)

// probed is what the host's portmap said when it was asked. It is asked again when the file is another one.
type probed struct {
	mu    sync.Mutex
	size  int64     // guarded by mu
	mod   time.Time // guarded by mu
	knows bool      // guarded by mu
}

// portmapType returns the name of the portmap to use. All plugins of a list are called with one version: one that does not know
// the newest would fail under runtimes that do, for every pod.
func (i *Install) portmapType() string {
	path := filepath.Join(i.BinDir, referencePortmap)
	info, err := os.Stat(path)
	if err != nil {
		return referencePortmap // which is about to be installed
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(i.Plugin), referencePortmap)); err != nil {
		return referencePortmap // there is no other
	}
	i.portmap.mu.Lock()
	defer i.portmap.mu.Unlock()
	if i.portmap.size != info.Size() || !i.portmap.mod.Equal(info.ModTime()) {
		i.portmap.size, i.portmap.mod, i.portmap.knows = info.Size(), info.ModTime(), knowsNewest(path)
	}
	if i.portmap.knows {
		return referencePortmap
	}
	return ownPortmap
}

// knowsNewest asks a plugin whether it speaks the newest version. One that cannot be run here, as it wants libraries of the host,
// counts as one that does not.
func knowsNewest(path string) bool {
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
