package podlink

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// namedSpaces is the pattern of the paths of named network namespaces.
const namedSpaces = "/run/netns/*"

// spacePatterns are the paths of network namespaces: named ones, those of container runtimes, and those of processes. A daemon in
// a container may see none of them.
var spacePatterns = []string{namedSpaces, "/run/docker/netns/*", "/proc/[0-9]*/ns/net"}

// ErrHidden means that no file on this host leads into the namespace of a pod, so that its interface cannot be changed.
var ErrHidden = errors.New("podlink: the namespace of the pod is not visible here")

// enterSpaces calls f once for each of the network namespaces with the given IDs that a file of this host leads into, with the open
// namespace.
func enterSpaces(ids []int, f func(fd netns.NsHandle, id int)) {
	open := make(map[int]bool, len(ids))
	for _, id := range ids {
		open[id] = true
	}
	for _, pattern := range spacePatterns {
		paths, _ := filepath.Glob(pattern) // the patterns are valid
		for _, path := range paths {
			if len(open) == 0 {
				return
			}
			inSpace(path, func(fd netns.NsHandle, id int) {
				if open[id] {
					f(fd, id)
				}
				delete(open, id)
			})
		}
	}
}

// inSpace calls f with an open namespace of the network and its ID. It does nothing if path is no such namespace, or one without
// an ID: that of no pod.
func inSpace(path string, f func(fd netns.NsHandle, id int)) {
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		return
	}
	fd, err := netns.GetFromPath(path)
	if err != nil {
		return
	}
	defer func() { _ = fd.Close() }()
	if id, err := netlink.GetNetNsIdByFd(int(fd)); err == nil && id >= 0 {
		f(fd, id)
	}
}

// NamedSpaces returns the paths of the named network namespaces (ip-netns(8)) that pods behind some ports are in, by the name of the host
// end.
func NamedSpaces(ports []Port) map[string]string {
	paths := map[string]string{}
	files, _ := filepath.Glob(namedSpaces) // the pattern is valid
	for _, path := range files {
		inSpace(path, func(_ netns.NsHandle, id int) {
			for _, p := range ports {
				if p.netns == id {
					paths[p.Name] = path
				}
			}
		})
	}
	return paths
}
