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
	"weft/internal/kube/cluster"
	"weft/internal/leases/holder"
)

// attachmentsFile holds the attachments. It is in the run directory, because a reboot ends all of them.
const attachmentsFile = "attachments.json"

// podKey names a pod.
type podKey = cluster.Key

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
			a.pods[podKey{Namespace: p.Namespace, Name: p.Name}] = p
		}
	}
	return a, nil
}

// add stores a pod in place of all pods that have one of its addresses, and returns the pods that changed.
func (a *attachments) add(in api.Admission) (changed []podKey, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	maps.DeleteFunc(a.pods, func(key podKey, p attachment) bool {
		same := slices.ContainsFunc(p.IPs, func(ip netip.Addr) bool { return slices.Contains(in.IPs, ip) })
		if same {
			changed = append(changed, key)
		}
		return same
	})
	link, _ := holder.Parse(in.Owner).HostLink()
	key := podKey{Namespace: in.Namespace, Name: in.Name}
	a.pods[key] = attachment{
		Namespace: in.Namespace, Name: in.Name, UID: in.UID, Owner: in.Owner, IPs: in.IPs, Link: link, MAC: in.MAC,
	}
	return append(changed, key), a.save()
}

// remove removes pods.
func (a *attachments) remove(pods []podKey) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, key := range pods {
		delete(a.pods, key)
	}
	return a.save()
}

// get returns the attachment of a pod, nil if it has none.
func (a *attachments) get(pod podKey) *attachment {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p, ok := a.pods[pod]; ok {
		return &p
	}
	return nil
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
