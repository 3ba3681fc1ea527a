package podlink

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// namedSpaces is the pattern of the paths of named network namespaces.
const namedSpaces = "/run/netns/*"

// spacePatterns are the paths of network namespaces: named ones, and those of container runtimes. A daemon in a container may see none of
// them.
var spacePatterns = []string{namedSpaces, "/run/docker/netns/*"}

// processSpaces returns the paths of the network namespaces of processes. filepath.Glob would read the folder of each.
func processSpaces() (paths []string) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1) // an error may follow some names
	for _, name := range names {
		if _, err := strconv.Atoi(name); err == nil {
			paths = append(paths, filepath.Join("/proc", name, "ns/net"))
		}
	}
	return paths
}

// ErrHidden means that no file on this host leads into the namespace of a pod, so that its interface cannot be changed.
var ErrHidden = errors.New("podlink: the namespace of the pod is not visible here")

// enterSpaces calls f once for each of the network namespaces with the given IDs that a file of this host leads into, with the open
// namespace.
func enterSpaces(ids []int, f func(fd netns.NsHandle, id int)) {
	wanted := make(map[int]bool, len(ids))
	for _, id := range ids {
		wanted[id] = true
	}
	tried := map[space]bool{} // most processes are in a few namespaces
	enter := func(paths []string) {
		for _, path := range paths {
			if len(wanted) == 0 {
				return
			}
			s, ok := spaceAt(path)
			if !ok || tried[s] {
				continue
			}
			tried[s] = true
			inSpace(path, func(fd netns.NsHandle, id int) {
				if wanted[id] {
					f(fd, id)
				}
				delete(wanted, id)
			})
		}
	}
	for _, pattern := range spacePatterns {
		paths, _ := filepath.Glob(pattern) // the patterns are valid
		enter(paths)
	}
	if len(wanted) > 0 {
		enter(processSpaces())
	}
}

// space identifies the file of a namespace.
type space struct{ device, inode uint64 }

// spaceAt returns the namespace that a path leads to. It is not ok if the path leads to no file of that kind.
func spaceAt(path string) (s space, ok bool) {
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil || stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return s, false
	}
	return space{stat.Dev, stat.Ino}, true
}

// inSpace calls f with an open namespace of the network and its ID. It does nothing if path is no such namespace, or one without
// an ID: that of no pod.
func inSpace(path string, f func(fd netns.NsHandle, id int)) {
	if _, ok := spaceAt(path); !ok {
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
