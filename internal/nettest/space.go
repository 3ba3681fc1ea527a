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

// runDir is where named network namespaces live, as iproute2 has it.
const runDir = "/run/netns"

// Space is a network namespace of a lab. Its methods may be called concurrently.
type Space struct {
	name string
}

// Name returns the name that `ip netns` knows the namespace by.
func (s *Space) Name() string { return s.name }

// Path returns the file that stands for the namespace, as CNI_NETNS takes it.
func (s *Space) Path() string { return filepath.Join(runDir, s.name) }

// Command returns a command that will run in the namespace. Mounts stay those of the calling process, so /sys shows
// the interfaces of the caller's namespace.
func (s *Space) Command(ctx context.Context, argv ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + s.Path(), "--"}, argv...)...)
}

// Run runs a command in the namespace and returns what it printed on both outputs; the error repeats that.
func (s *Space) Run(ctx context.Context, argv ...string) (string, error) {
	out, err := s.Command(ctx, argv...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("nettest: %s in %s: %w: %s", strings.Join(argv, " "), s.name, err, strings.TrimSpace(string(out)))
	}
	return string(out), err
}

// Do calls f on a thread that is in the namespace. Goroutines that f starts are not in it; processes are.
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

// prepare brings the loopback up and sets what would otherwise be inherited or be in the way: no reverse path filter, addresses
// usable at once, nobody's router advertisements.
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

// createSpace makes a named network namespace. The thread that does it stays in there and ends with its goroutine.
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
		return fmt.Errorf("nettest: making namespace %s: %w", name, err)
	}
	return nil
}
