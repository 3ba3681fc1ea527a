package kube

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"weft/internal/api"
	"weft/internal/ether"
	"weft/internal/leases/holder"
)

// attachmentsFile holds the attachments. It is in the run directory, because a reboot ends all of them.
const attachmentsFile = "attachments.json"

// podKey names a pod.
type podKey struct{ Namespace, Name string }

// attachment has the addresses of a pod, as the plugin announced them before the API server knows them.
type attachment struct {
	Namespace, Name, UID string
	Owner                string // of the attachment at the daemon; empty: not known
	IPs                  []netip.Addr
	// Link is the name of the pod's port, MAC that of its interface; empty if a plugin of an older version announced the pod.
	Link string
	MAC  ether.Addr
}

// attachments holds the pods that the plugin has announced, also across restarts of the agent, until a pod is deleted or
// another pod has its address. Its methods may be called concurrently.
type attachments struct {
	path string
	mu   sync.Mutex
	pods map[podKey]attachment // guarded by mu
}

func openAttachments(dir string) (*attachments, error) {
	a := &attachments{path: filepath.Join(dir, attachmentsFile), pods: map[podKey]attachment{}}
	text, err := os.ReadFile(a.path)
	if errors.Is(err, fs.ErrNotExist) {
		return a, nil
	} else if err != nil {
		return nil, fmt.Errorf("kube: attachments: %w", err)
	}
	var list []attachment
	if json.Unmarshal(text, &list) == nil { // else it was damaged by a crash
		for _, p := range list {
			a.pods[podKey{p.Namespace, p.Name}] = p
		}
	}
	return a, nil
}

// add stores a pod in place of all pods that have one of its addresses.
func (a *attachments) add(in api.Admission) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	maps.DeleteFunc(a.pods, func(_ podKey, p attachment) bool {
		return slices.ContainsFunc(p.IPs, func(ip netip.Addr) bool { return slices.Contains(in.IPs, ip) })
	})
	link, _ := holder.Parse(in.Owner).HostLink()
	a.pods[podKey{in.Namespace, in.Name}] = attachment{
		Namespace: in.Namespace, Name: in.Name, UID: in.UID, Owner: in.Owner, IPs: in.IPs, Link: link, MAC: in.MAC,
	}
	return a.save()
}

// retain removes the pods that do not exist.
func (a *attachments) retain(exists func(attachment) bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	before := len(a.pods)
	maps.DeleteFunc(a.pods, func(_ podKey, p attachment) bool { return !exists(p) })
	if len(a.pods) == before {
		return nil
	}
	return a.save()
}

// all returns a copy of the attachments.
func (a *attachments) all() map[podKey]attachment {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.pods)
}

// save writes the file. The caller holds mu.
func (a *attachments) save() error {
	return replaceJSON(a.path, slices.Collect(maps.Values(a.pods)))
}
