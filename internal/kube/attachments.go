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
)

// attachmentsFile is where attachments are written, in the run directory: a reboot ends all of them.
const attachmentsFile = "attachments.json"

// podKey names a pod.
type podKey struct{ Namespace, Name string }

// attachment is what the plugin has told of a pod: its addresses, before the API server knows them.
type attachment struct {
	Namespace, Name, UID string
	IPs                  []netip.Addr
}

// attachments remembers what the plugin has told, over restarts of the agent, until the pod is gone or its address has
// been given to another.
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
	if json.Unmarshal(text, &list) == nil { // else a crash has left half of it
		for _, p := range list {
			a.pods[podKey{p.Namespace, p.Name}] = p
		}
	}
	return a, nil
}

// add remembers a pod.
func (a *attachments) add(in api.Admission) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	maps.DeleteFunc(a.pods, func(_ podKey, p attachment) bool {
		return slices.ContainsFunc(p.IPs, func(ip netip.Addr) bool { return slices.Contains(in.IPs, ip) })
	})
	a.pods[podKey{in.Namespace, in.Name}] = attachment{Namespace: in.Namespace, Name: in.Name, UID: in.UID, IPs: in.IPs}
	return a.save()
}

// retain forgets the pods that are no more.
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

// all returns what is remembered.
func (a *attachments) all() map[podKey]attachment {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.pods)
}

// save writes the file; mu is held.
func (a *attachments) save() error {
	return replaceJSON(a.path, slices.Collect(maps.Values(a.pods)))
}
