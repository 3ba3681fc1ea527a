package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"weft/internal/hint"
	"weft/internal/hostnet"
	"weft/internal/masq"
	"weft/internal/podlink"
	"weft/internal/settings"
	"weft/router/carrier/vxlan"
	"weft/router/carrier/wireguard"
)

// The checks of this file concern the kernel and the other programs of the host.

// tunDevice is the device through which the kernel creates TAPs.
const tunDevice = "/dev/net/tun"

func checkPrivileges(context.Context, *settings.Config) finding {
	for _, need := range []struct {
		bit  uint
		name string
	}{{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"}, {unix.CAP_NET_RAW, "CAP_NET_RAW"}} {
		has, err := hasCapability(need.bit)
		if err != nil {
			return fail(err)
		}
		if !has {
			return fail(hint.Refuse("weft up", "Run it as root, for example with sudo, or give it CAP_NET_ADMIN, CAP_NET_RAW and CAP_SYS_ADMIN.",
				"the capability %s is missing", need.name))
		}
	}
	if has, err := hasCapability(unix.CAP_SYS_NICE); err == nil && !has {
		return warn("Give it to the process, or run as root.", "CAP_SYS_NICE is missing: busy pods may delay the network")
	}
	if has, err := hasCapability(unix.CAP_SYS_ADMIN); err == nil && !has { // as on Kubernetes, where the plugin enters namespaces
		return ok("all present except CAP_SYS_ADMIN, which only \"weft attach\" needs")
	}
	return ok("all present")
}

// Privileged reports whether this process may look at what the checks need, as root may. For other users most checks would find faults
// that are not there.
func Privileged() bool {
	has, err := hasCapability(unix.CAP_NET_ADMIN)
	return err != nil || has
}

func hasCapability(bit uint) (bool, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false, fmt.Errorf("doctor: reading the own capabilities: %w", err)
	}
	return data[bit/32].Effective&(1<<(bit%32)) != 0, nil
}

// kernelUSO is the first kernel with TAPs that support UDP segmentation offload.
const kernelUSO = "6.2"

func checkKernel(context.Context, *settings.Config) finding {
	release := hostnet.KernelRelease()
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return warn("weft supports Linux 4.18 and later.", "Linux %s: the version cannot be parsed", release)
	}
	switch {
	case major < 4 || major == 4 && minor < 18:
		return warn("Use Linux 4.18 or later, better "+kernelUSO+".", "Linux %s has no UDP segmentation (UDP_SEGMENT)", release)
	case major < 5:
		return warn("Use Linux 5.0 or later, better "+kernelUSO+".", "Linux %s does not coalesce datagrams (UDP_GRO)", release)
	case major < 6 || major == 6 && minor < 2:
		return ok("Linux %s (bulk UDP is faster from %s on)", release, kernelUSO)
	}
	return ok("Linux %s", release)
}

func checkTun(context.Context, *settings.Config) finding {
	f, err := os.OpenFile(tunDevice, os.O_RDWR, 0)
	switch {
	case err == nil:
		return failOr(f.Close(), "%s can be opened", tunDevice)
	case errors.Is(err, fs.ErrNotExist):
		return fail(hint.Refuse(tunDevice, "Load the module (modprobe tun), or in a container mount /dev/net/tun.", "%w", err))
	case errors.Is(err, syscall.ENODEV), errors.Is(err, syscall.ENXIO):
		return fail(hint.Refuse(tunDevice, "The kernel has no TUN/TAP driver: load the module (modprobe tun).", "%w", err))
	default:
		return fail(hint.Refuse(tunDevice, "Let the process open it: run as root, or allow the device to the container.", "%w", err))
	}
}

// checkModules checks for modules that every node needs.
func checkModules(context.Context, *settings.Config) finding {
	var missing []string
	for _, name := range []string{"bridge", "veth"} {
		if !hasModule(name) {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return fail(hint.New(hint.Refused, "Install the kernel's extra modules, or load them with modprobe.",
			"the kernel does not have %s", strings.Join(missing, " and ")))
	}
	return ok("bridge and veth are present")
}

// hasWireGuard reports whether this host has WireGuard, as far as that is known without making a device.
func hasWireGuard(c *settings.Config) bool { return c.WireGuardDevice != "" || hasModule("wireguard") }

// checkWireGuard says what carries the frames that must be encrypted: userspace always can.
func checkWireGuard(_ context.Context, c *settings.Config) finding {
	switch {
	case !c.AllowsTunnels(c.Sealed()):
		return ok("not needed (no encryption, or excluded by --carriers, --cipher, --source-check or --datapath)")
	case c.WireGuardDevice != "":
		err := wireguard.Available(c.WireGuardDevice, true)
		if err != nil {
			err = hint.Refuse("--wireguard-device", "Make the device, or start without this flag.", "%w", err)
		}
		return failOr(err, "%s is a device of WireGuard", c.WireGuardDevice)
	case !hasWireGuard(c):
		return ok("the kernel has no WireGuard (modprobe wireguard): frames that must be encrypted are carried in userspace")
	}
	return ok("WireGuard can carry frames that must be encrypted, by UDP port %d", c.TunnelPort())
}

// checkVXLAN is fatal only where the kernel path was requested.
func checkVXLAN(_ context.Context, c *settings.Config) finding {
	if c.Datapath == settings.DatapathUserspace {
		return ok("not needed (--datapath userspace)")
	}
	var err error
	if !hasModule("vxlan") {
		err = hint.Refuse("--datapath", "Install the kernel's extra modules, or run \"modprobe vxlan\".",
			"the kernel has no VXLAN: all frames are carried in userspace")
	} else if cause := vxlan.Check(c.KernelDevice(), c.KernelPort()); cause != nil {
		err = hint.Refuse("--datapath", "Fix the error, or use --datapath userspace.", "%w", cause)
	}
	if start, known := unprivilegedPortStart(); err == nil && known && start <= vxlan.LastPrivileged {
		return warn(fmt.Sprintf("Set it to %d or more, or use --datapath userspace.", vxlan.LastPrivileged+1),
			"net.ipv4.ip_unprivileged_port_start is %d: any user of this host can send frames into the overlays of nodes without a secret", start)
	}
	f := failOr(err, "the kernel path can use UDP port %d", c.KernelPort())
	if c.Datapath != settings.DatapathKernel {
		return f.degrade()
	}
	return f
}

// unprivilegedPortStart returns the first port that users without privileges may have; false where the kernel does not show it.
func unprivilegedPortStart() (start int, known bool) {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start") // for IPv6, too
	if err != nil {
		return 0, false
	}
	start, err = strconv.Atoi(strings.TrimSpace(string(text)))
	return start, err == nil
}

// hasModule reports whether the running kernel has a module: built in, loaded, or loadable. It returns true where the host
// does not show it.
func hasModule(name string) bool {
	if _, err := os.Stat("/sys/module/" + name); err == nil {
		return true
	}
	dir := filepath.Join("/lib/modules", hostnet.KernelRelease())
	known := false
	for _, list := range []string{"modules.builtin", "modules.dep"} {
		text, err := os.ReadFile(filepath.Join(dir, list))
		if err != nil {
			continue
		}
		known = true
		if strings.Contains(string(text), "/"+name+".ko") {
			return true
		}
	}
	return !known
}

func checkNFT(ctx context.Context, c *settings.Config) finding {
	_, err := masq.New(ctx)
	if err == nil {
		return ok("nft works")
	}
	if c.NoMasquerade && c.Datapath == settings.DatapathUserspace {
		return ok("not needed (--no-masquerade, --datapath userspace)")
	}
	return warn("Install the nftables package, or start with --no-masquerade.",
		"%v: pods cannot reach addresses outside the overlay, and the kernel path cannot be used", err)
}

// sysctl returns a network setting as a number; present is false where the kernel does not have it.
func sysctl(path string) (value int, present bool) {
	text, err := os.ReadFile(filepath.Join("/proc/sys/net", path))
	if err != nil {
		return 0, false
	}
	value, err = strconv.Atoi(strings.TrimSpace(string(text)))
	return value, err == nil
}

func checkForwarding(_ context.Context, c *settings.Config) finding {
	if c.NoMasquerade {
		return ok("not needed (--no-masquerade)")
	}
	for _, s := range []struct {
		path   string
		needed bool
	}{{"ipv4/ip_forward", c.HasIPv4()}, {"ipv6/conf/all/forwarding", c.HasIPv6()}} {
		value, present := sysctl(s.path)
		if !s.needed || value == 1 {
			continue
		}
		name := "net." + strings.ReplaceAll(s.path, "/", ".")
		if !present {
			return warn("Enable the address family, or configure no range of it.", "the kernel does not have %s", name)
		}
		if err := unix.Access("/proc/sys/net/"+s.path, unix.W_OK); err != nil {
			return warn(fmt.Sprintf("Set it before the start: sysctl -w %s=1", name),
				"%s is off and this process cannot turn it on (%v): pods cannot reach addresses outside the overlay", name, err)
		}
		return ok("%s is off; weft turns it on", name)
	}
	return ok("on")
}

// checkNeighbors checks for room in the kernel's tables of neighbors.
func checkNeighbors(context.Context, *settings.Config) finding {
	tables, err := hostnet.NeighborTables("/proc")
	switch {
	case err != nil:
		return warn("", "cannot be read: %v", err)
	case len(tables) == 0:
		return ok("not visible in this network namespace")
	}
	var found []string
	for _, t := range tables {
		if t.Entries > t.Limit*4/5 {
			return warn(fmt.Sprintf("Raise the limit, for the host and all its pods together: sysctl -w %s=%d", t.Setting(), 4*t.Limit),
				"%d neighbors, and room for %d (%s), not counting permanent ones: with more, pods do not reach new addresses", t.Entries, t.Limit,
				t.Setting())
		}
		found = append(found, fmt.Sprintf("%d of at most %d (%s)", t.Entries, t.Limit, t.Family))
	}
	return ok("%s", strings.Join(found, ", "))
}

// checkReversePath checks for strict reverse path filtering (RFC 3704): where several interfaces lead to a peer, it drops
// datagrams that arrive on another interface than the one that the answer would leave by.
func checkReversePath(context.Context, *settings.Config) finding {
	const strict = 1
	all, _ := sysctl("ipv4/conf/all/rp_filter")
	paths, _ := filepath.Glob("/proc/sys/net/ipv4/conf/*/rp_filter")
	var links []string
	for _, path := range paths {
		name := filepath.Base(filepath.Dir(path))
		if slices.Contains([]string{"all", "default", "lo"}, name) || !isHardware(name) {
			continue
		}
		// The kernel uses the larger of the two values (ip-sysctl.rst).
		if own, _ := sysctl("ipv4/conf/" + name + "/rp_filter"); max(all, own) == strict {
			links = append(links, name)
		}
	}
	if len(links) > 1 {
		return warn("Run \"sysctl -w net.ipv4.conf.all.rp_filter=2\" if peers are reached by more than one of them.",
			"it is strict on %s: datagrams that arrive on another interface than the answer leaves by are dropped", strings.Join(links, ", "))
	}
	return ok("does not drop datagrams of peers")
}

// isHardware reports whether a link is a device of the host rather than one that software created.
func isHardware(name string) bool {
	_, err := os.Stat(filepath.Join("/sys/class/net", name, "device"))
	return err == nil
}

// checkManagers checks for network managers, which reconfigure interfaces that other programs created.
func checkManagers(_ context.Context, c *settings.Config) finding {
	if _, err := os.Stat("/run/NetworkManager"); errors.Is(err, fs.ErrNotExist) {
		return ok("NetworkManager does not run")
	}
	for _, dir := range []string{"/etc", "/usr/lib", "/run"} {
		files, _ := filepath.Glob(filepath.Join(dir, "NetworkManager/conf.d/*.conf"))
		for _, file := range files {
			if text, err := os.ReadFile(file); err == nil && strings.Contains(string(text), c.Bridge) {
				return ok("%s mentions %s", file, c.Bridge)
			}
		}
	}
	return warn(fmt.Sprintf("Write to /etc/NetworkManager/conf.d/weft.conf: [keyfile] "+
		"unmanaged-devices=interface-name:%s;interface-name:%s;interface-name:"+
		podlink.HostPrefix+"*;interface-name:weftvx*;interface-name:weftp*", c.Bridge, c.Tap),
		"NetworkManager runs and may reconfigure %s and %s", c.Bridge, c.Tap)
}
