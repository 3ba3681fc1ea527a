package podlink

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/netdump"
)

// Pairs implements Linker.
func (Kernel) Pairs() ([]Pair, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("podlink: netlink: %w", err)
	}
	defer h.Close()
	links, err := netdump.Repeat(h.LinkList)
	if err != nil {
		return nil, fmt.Errorf("podlink: list links: %w", err)
	}
	busy, err := busySpaces(h, "/proc")
	if err != nil {
		return nil, err
	}
	var pairs []Pair
	for _, l := range links {
		if a := l.Attrs(); l.Type() == typeVeth && strings.HasPrefix(a.Name, HostPrefix) {
			pairs = append(pairs, Pair{HostName: a.Name, Origin: ParseOrigin(a.Alias), Running: a.NetNsID >= 0 && busy[a.NetNsID]})
		}
	}
	return pairs, nil
}

// busySpaces returns the IDs of the network namespaces with processes, as seen from the namespace of h. proc is the mount point
// of procfs. A namespace without an ID is not among them: no link of this namespace has its other end there.
func busySpaces(h *netlink.Handle, proc string) (map[int]bool, error) {
	files, err := filepath.Glob(filepath.Join(proc, "[0-9]*", "ns", "net"))
	if err != nil {
		return nil, fmt.Errorf("podlink: list processes: %w", err)
	}
	busy, seen := map[int]bool{}, map[string]bool{}
	for _, file := range files {
		space, err := os.Readlink(file)
		if err != nil || seen[space] { // a process that ended has none
			continue
		}
		seen[space] = true
		id, err := idOf(h, file)
		if errors.Is(err, fs.ErrNotExist) {
			delete(seen, space) // another process may be in the same namespace
			continue
		} else if err != nil {
			return nil, err
		}
		busy[id] = true
	}
	return busy, nil
}

// idOf returns the ID of the network namespace at path; negative: it has none.
func idOf(h *netlink.Handle, path string) (int, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, fmt.Errorf("podlink: %w", err)
	}
	defer func() { _ = f.Close() }()
	id, err := h.GetNetNsIdByFd(int(f.Fd()))
	if err != nil {
		return 0, fmt.Errorf("podlink: the ID of the namespace at %s: %w", path, err)
	}
	return id, nil
}

// Confirm implements Linker.
func (Kernel) Confirm(hostName string) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("podlink: netlink: %w", err)
	}
	defer h.Close()
	l, err := find(h, hostName)
	if err != nil {
		return err
	}
	origin := ParseOrigin(l.Attrs().Alias)
	if !origin.Pending {
		return nil
	}
	origin.Pending = false
	if err := h.LinkSetAlias(l, origin.alias()); err != nil {
		return fmt.Errorf("podlink: set the alias of %s: %w", hostName, err)
	}
	return nil
}
