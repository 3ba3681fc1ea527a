package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/router/vxlan"
	"weft/tap/bridge"
)

// tunDevice is where the kernel makes TAP devices.
const tunDevice = "/dev/net/tun"

// preflight looks whether the host lets a node run, and changes nothing. Its errors are Refusals.
func (c *Config) preflight() error {
	checks := []func() error{
		c.checkPrivileges, c.checkTun, c.checkSocket, c.checkBridge, c.checkTap, c.checkPorts, c.checkKernelPath, c.checkOverlap,
	}
	for _, check := range checks {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// checkKernelPath looks whether the kernel path can be made, where it has been asked for.
func (c *Config) checkKernelPath() error {
	if c.Datapath != datapathKernel {
		return nil
	}
	if err := vxlan.Check(c.kernelName(), c.kernelPort()); err != nil {
		return refuse("--datapath", "Use auto or userspace, or mend what is said.", "%w", err)
	}
	return nil
}

func (c *Config) checkPrivileges() error {
	for _, need := range []struct {
		bit  uint
		name string
	}{{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"}, {unix.CAP_NET_RAW, "CAP_NET_RAW"}} {
		has, err := hasCapability(need.bit)
		if err != nil {
			return err
		}
		if !has {
			return refuse("weft up", "Run it as root, or give it CAP_NET_ADMIN, CAP_NET_RAW and CAP_SYS_ADMIN.",
				"the privilege %s is missing", need.name)
		}
	}
	return nil
}

func (c *Config) checkTun() error {
	f, err := os.OpenFile(tunDevice, os.O_RDWR, 0)
	switch {
	case err == nil:
		return f.Close()
	case errors.Is(err, fs.ErrNotExist):
		return refuse(tunDevice, "Load the module (modprobe tun), or in a container mount /dev/net/tun.", "%w", err)
	case errors.Is(err, syscall.ENODEV), errors.Is(err, syscall.ENXIO):
		return refuse(tunDevice, "The kernel has no TUN/TAP driver: load the module (modprobe tun).", "%w", err)
	default:
		return refuse(tunDevice, "Let the process open it: run as root, or allow the device to the container.", "%w", err)
	}
}

// checkSocket refuses to start beside another daemon on the same socket.
func (c *Config) checkSocket() error {
	if info, err := os.Lstat(c.Socket); err == nil && info.Mode().Type() != fs.ModeSocket {
		return refuse("--socket", "Name another path, or remove what is there.", "%s exists and is no socket", c.Socket)
	}
	d := net.Dialer{Timeout: time.Second}
	conn, _ := d.DialContext(context.Background(), "unix", c.Socket)
	if conn == nil {
		return nil // nobody is there; a file left behind by a crash is replaced
	}
	return errors.Join(refuse("--socket", "Stop it first, or give this one a --socket, --state-dir, --bridge, --tap and --port of its own.",
		"another weft daemon answers at %s", c.Socket), conn.Close())
}

func (c *Config) checkBridge() error {
	info, err := bridge.Inspect(c.Bridge)
	if err != nil {
		return fmt.Errorf("daemon: looking at %s: %w", c.Bridge, err)
	}
	if info.State == bridge.Other {
		return refuse("--bridge", "Choose another name, or remove that link.", "%s exists and is no bridge but a link of kind %q", c.Bridge, info.Kind)
	}
	return nil
}

func (c *Config) checkTap() error {
	info, err := bridge.Inspect(c.Tap)
	if err != nil {
		return fmt.Errorf("daemon: looking at %s: %w", c.Tap, err)
	}
	if info.State != bridge.Absent {
		return refuse("--tap", "Choose another name, or stop what holds that link: another weft, perhaps.",
			"%s is in use by a link of kind %q", c.Tap, info.Kind)
	}
	return nil
}

func (c *Config) checkPorts() error {
	for _, p := range []struct {
		network string
		port    int
		use     string
	}{{"tcp", c.Port, "gossip"}, {"udp", c.Port, "gossip"}, {"udp", c.Port + 1, "data"}} {
		if err := tryListen(p.network, ":"+strconv.Itoa(p.port)); err != nil {
			return refuse("--port", "Stop what listens there (ss -lnptu shows it), or choose another port on all nodes.",
				"%s port %d for %s: %w", p.network, p.port, p.use, rootCause(err))
		}
	}
	if c.HTTPAddr == "" {
		return nil
	}
	if err := tryListen("tcp", c.HTTPAddr); err != nil {
		return refuse("--http-addr", "Choose another address, or none to turn it off.", "%s: %w", c.HTTPAddr, rootCause(err))
	}
	return nil
}

func tryListen(network, addr string) error {
	var lc net.ListenConfig
	if network == "udp" {
		conn, err := lc.ListenPacket(context.Background(), network, addr)
		if err != nil {
			return err
		}
		return conn.Close()
	}
	l, err := lc.Listen(context.Background(), network, addr)
	if err != nil {
		return err
	}
	return l.Close()
}

// rootCause strips net's wrapping off a system call's error.
func rootCause(err error) error {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno
	}
	return err
}

// checkOverlap refuses a range that the host already routes elsewhere: pods would cut it off from those hosts.
func (c *Config) checkOverlap() error {
	if c.AllowOverlap {
		return nil
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("daemon: reading the host's routes: %w", err)
	}
	for _, r := range routes {
		dst, ok := prefixOf(r.Dst)
		if !ok || dst.Bits() == 0 {
			continue
		}
		name := linkName(r.LinkIndex)
		if name == c.Bridge {
			continue // of an earlier run
		}
		for _, rng := range c.Ranges {
			if rng.Overlaps(dst) {
				return refuse("--range", "Choose a range that is free on every host, or say --allow-overlap.",
					"%s overlaps the host's route %s on %s", rng, dst, name)
			}
		}
	}
	return nil
}

func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	addr, ok := netip.AddrFromSlice(n.IP)
	ones, bits := n.Mask.Size()
	if !ok || bits == 0 {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(addr.Unmap(), ones), true
}

func linkName(index int) string {
	link, err := netlink.LinkByIndex(index)
	if err != nil {
		return "link " + strconv.Itoa(index)
	}
	return link.Attrs().Name
}
