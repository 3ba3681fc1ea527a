package nettest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// runDir is the folder of named network namespaces, as for iproute2.
const runDir = "/run/netns"

// Space is a network namespace of a lab. Its methods may be called concurrently.
type Space struct {
	name  string
	cores string // list of cores for taskset, or empty; constant after Pin
}

// Name returns the name of the namespace for `ip netns`.
func (s *Space) Name() string { return s.name }

// Path returns the path of the namespace's file, for example for CNI_NETNS.
func (s *Space) Path() string { return filepath.Join(runDir, s.name) }

// Command returns a command that runs in the namespace. It has the mounts of the calling process, so /sys shows the
// interfaces of the caller's namespace.
func (s *Space) Command(ctx context.Context, argv ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + s.Path(), "--"}, s.pinned(argv)...)...)
}

// Run runs a command in the namespace and returns its standard output and standard error. The error contains them, too.
func (s *Space) Run(ctx context.Context, argv ...string) (string, error) {
	out, err := s.Command(ctx, argv...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("nettest: %s in %s: %w: %s", strings.Join(argv, " "), s.name, err, strings.TrimSpace(string(out)))
	}
	return string(out), err
}

// Do calls f on a thread in the namespace. Processes that f starts are in the namespace, goroutines are not.
func (s *Space) Do(f func() error) error {
	return ns.WithNetNSPath(s.Path(), func(ns.NetNS) error { return f() })
}

// netlink calls f with a netlink handle in the namespace.
func (s *Space) netlink(f func(h *netlink.Handle) error) error {
	fd, err := netns.GetFromPath(s.Path())
	if err != nil {
		return fmt.Errorf("nettest: opening %s: %w", s.Path(), err)
	}
	defer func() { _ = fd.Close() }()
	h, err := netlink.NewHandleAt(fd)
	if err != nil {
		return fmt.Errorf("nettest: netlink in %s: %w", s.name, err)
	}
	defer h.Close()
	return f(h)
}

// prepare brings the loopback up and sets sysctls that would disturb tests: it disables the reverse path filter, duplicate
// address detection and router advertisements, and allows unprivileged ping sockets.
func (s *Space) prepare() error {
	err := s.netlink(func(h *netlink.Handle) error {
		lo, err := h.LinkByName("lo")
		if err != nil {
			return err
		}
		return h.LinkSetUp(lo)
	})
	if err != nil {
		return fmt.Errorf("nettest: loopback of %s: %w", s.name, err)
	}
	return s.Do(func() error {
		for _, v := range [][2]string{
			{"ipv4/conf/all/rp_filter", "0"},
			{"ipv4/conf/default/rp_filter", "0"},
			{"ipv4/ping_group_range", "0 2147483647"},
			{"ipv6/conf/default/accept_dad", "0"},
			{"ipv6/conf/default/accept_ra", "0"},
		} {
			err := os.WriteFile(filepath.Join("/proc/sys/net", v[0]), []byte(v[1]), 0)
			if err != nil && !errors.Is(err, fs.ErrNotExist) { // no IPv6
				return fmt.Errorf("nettest: sysctl in %s: %w", s.name, err)
			}
		}
		return nil
	})
}

// createSpace creates a named network namespace. It does so on a thread that stays in the namespace and ends with its
// goroutine.
func createSpace(name string) error {
	if err := shareRunDir(); err != nil {
		return err
	}
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		h, err := netns.NewNamed(name)
		if err == nil {
			err = h.Close()
		}
		result <- err
	}()
	if err := <-result; err != nil {
		return fmt.Errorf("nettest: creating namespace %s: %w", name, err)
	}
	return nil
}
