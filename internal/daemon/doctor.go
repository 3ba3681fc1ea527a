package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/api"
	"weft/internal/masq"
	"weft/mesh"
	"weft/router/vxlan"
	"weft/router/wire"
)

// check is one look at the host.
type check struct {
	name string
	look func(ctx context.Context, c *Config) finding
}

// Names of checks that are looked up by them.
const (
	checkClock = "clock"
	checkPeers = "peers"
)

// finding is what came of a check; without a mend all is well.
type finding struct {
	detail  string
	mend    string
	fatal   bool // the node would not start, or would carry nothing
	unknown bool // it may not be looked at
}

// doc returns the finding as that of the check called name.
func (f finding) doc(name string) api.Check {
	c := api.Check{Name: name, Result: api.CheckOK, Detail: strings.Join(strings.Fields(f.detail), " "), Remedy: f.mend} // programs say more than a line
	switch {
	case f.fatal:
		c.Result = api.CheckFail
	case f.mend != "":
		c.Result = api.CheckWarn
	case f.unknown:
		c.Result = api.CheckUnknown
	}
	return c
}

func well(format string, args ...any) finding { return finding{detail: fmt.Sprintf(format, args...)} }

// worry is something that a node can live with.
func worry(mend, format string, args ...any) finding {
	return finding{detail: fmt.Sprintf(format, args...), mend: mend}
}

// failed is something that keeps a node from its work.
func failed(err error) finding {
	if r, ok := errors.AsType[*Refusal](err); ok {
		return finding{detail: r.Error(), mend: r.Hint, fatal: true}
	}
	return finding{detail: err.Error(), mend: "Mend what is said.", fatal: true}
}

// refusedOr returns how a check of a start came out: err, or that all is well.
func refusedOr(err error, format string, args ...any) finding {
	if err != nil {
		return failed(err)
	}
	return well(format, args...)
}

// checks are in the order in which they are best mended. Those that are about what a running node holds are left out beside one.
var checks = []struct {
	check
	beside bool // makes sense beside a running node of the same configuration
}{
	{check{"config", func(_ context.Context, c *Config) finding {
		return refusedOr(c.Validate(), "flags, environment and file make sense")
	}}, true},
	{check{"privileges", lookPrivileges}, true},
	{check{"kernel", lookKernel}, true},
	{check{"tun", func(_ context.Context, c *Config) finding {
		return refusedOr(c.checkTun(), "%s can be opened", tunDevice)
	}}, true},
	{check{"modules", lookModules}, true},
	{check{"vxlan", lookVXLAN}, true},
	{check{"nftables", lookNFT}, true},
	{check{"forwarding", lookForwarding}, true},
	{check{"bridge-nf", lookBridgeNF}, true},
	{check{"firewall", lookFirewall}, true},
	{check{"rp_filter", lookReversePath}, true},
	{check{"bridge", func(_ context.Context, c *Config) finding {
		return refusedOr(c.checkBridge(), "%s is free, or weft's", c.Bridge)
	}}, true},
	{check{"tap", func(_ context.Context, c *Config) finding { return refusedOr(c.checkTap(), "%s is free", c.Tap) }}, false},
	{check{"socket", func(_ context.Context, c *Config) finding { return refusedOr(c.checkSocket(), "%s is free", c.Socket) }}, false},
	{check{"ports", lookPorts}, false},
	{check{"range", func(_ context.Context, c *Config) finding {
		return refusedOr(c.checkOverlap(), "%s is routed nowhere else", ranges(c.Ranges))
	}}, true},
	{check{"address", lookAddress}, true},
	{check{"mtu", lookMTU}, true},
	{check{"state", lookState}, true},
	{check{"secret", lookSecret}, true},
	{check{checkClock, lookClock}, true},
	{check{"managers", lookManagers}, true},
	{check{checkPeers, lookPeers}, true},
}

// Doctor looks whether the host lets a node of this configuration run, and run well, and changes nothing.
func Doctor(ctx context.Context, cfg Config) []api.Check {
	running := cfg.answers(ctx)
	var found []api.Check
	for _, k := range checks {
		if running && !k.beside {
			found = append(found, well("held by the node that runs at %s", cfg.Socket).doc(k.name))
			continue
		}
		found = append(found, k.look(ctx, &cfg).doc(k.name))
	}
	return found
}

// Complete looks, as this process may, at what the node that found these checks may not: a service is not let near the clock.
func Complete(found []api.Check) {
	for i, c := range found {
		if c.Name == checkClock && c.Result == api.CheckUnknown {
			found[i] = lookClock(context.Background(), nil).doc(checkClock)
		}
	}
}

// answers reports whether a daemon listens at the socket.
func (c *Config) answers(ctx context.Context) bool {
	d := net.Dialer{Timeout: time.Second}
	conn, err := d.DialContext(ctx, "unix", c.Socket)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

func lookPrivileges(_ context.Context, c *Config) finding {
	if err := c.checkPrivileges(); err != nil {
		return failed(err)
	}
	if has, err := hasCapability(unix.CAP_SYS_NICE); err == nil && !has {
		return worry("Give it to the process, or run as root.", "CAP_SYS_NICE is missing: busy pods may delay the network")
	}
	if has, err := hasCapability(unix.CAP_SYS_ADMIN); err == nil && !has { // as on Kubernetes, where the plugin enters namespaces
		return well("all there but CAP_SYS_ADMIN, which \"weft attach\" alone needs")
	}
	return well("all there")
}

// kernelUSO is the first kernel whose TAPs take UDP segmentation.
const kernelUSO = "6.2"

func lookKernel(context.Context, *Config) finding {
	release := kernelRelease()
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return worry("Weft is made for Linux 4.18 and later.", "Linux %s: not understood", release)
	}
	switch {
	case major < 4 || major == 4 && minor < 18:
		return worry("Use Linux 4.18 or later, better "+kernelUSO+".", "Linux %s has no UDP segmentation (UDP_SEGMENT)", release)
	case major < 5:
		return worry("Use Linux 5.0 or later, better "+kernelUSO+".", "Linux %s does not join datagrams (UDP_GRO)", release)
	case major < 6 || major == 6 && minor < 2:
		return well("Linux %s (from %s on, UDP in bulk is faster)", release, kernelUSO)
	}
	return well("Linux %s", release)
}

// lookModules looks for what no node does without.
func lookModules(context.Context, *Config) finding {
	var missing []string
	for _, name := range []string{"bridge", "veth"} {
		if !hasModule(name) {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return finding{
			detail: "the kernel does not have " + strings.Join(missing, " and "),
			mend:   "Install the kernel's extra modules, or load them with modprobe.", fatal: true,
		}
	}
	return well("bridge and veth are there")
}

func lookVXLAN(_ context.Context, c *Config) finding {
	if c.Datapath == datapathUserspace {
		return well("not wanted (--datapath userspace)")
	}
	if !hasModule("vxlan") {
		f := worry("Install the kernel's extra modules, or \"modprobe vxlan\".", "the kernel has no VXLAN: all is carried in userspace")
		f.fatal = c.Datapath == datapathKernel
		return f
	}
	if err := vxlan.Check(c.kernelName(), c.kernelPort()); err != nil {
		f := worry("Mend what is said, or use --datapath userspace.", "%v", err)
		f.fatal = c.Datapath == datapathKernel
		return f
	}
	return well("the kernel's own path can be made on UDP port %d", c.kernelPort())
}

// hasModule reports whether the running kernel has a module: built in, loaded, or to be loaded. Where that cannot be told it says yes.
func hasModule(name string) bool {
	if _, err := os.Stat("/sys/module/" + name); err == nil {
		return true
	}
	folder := filepath.Join("/lib/modules", kernelRelease())
	known := false
	for _, list := range []string{"modules.builtin", "modules.dep"} {
		text, err := os.ReadFile(filepath.Join(folder, list))
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

func lookNFT(ctx context.Context, c *Config) finding {
	_, err := masq.New(ctx)
	if err == nil {
		return well("nft works")
	}
	if c.NoMasquerade && c.Datapath == datapathUserspace {
		return well("not needed (--no-masquerade, --datapath userspace)")
	}
	return worry("Install the nftables package, or start with --no-masquerade.",
		"%v: pods do not reach beyond the overlay, and the kernel's path cannot be used", err)
}

func lookPorts(_ context.Context, c *Config) finding {
	return refusedOr(c.checkPorts(), "TCP and UDP %d, UDP %d and %s are free", c.Port, c.Port+1, c.HTTPAddr)
}

func lookAddress(ctx context.Context, c *Config) finding {
	self, err := c.advertiseAddr(ctx)
	if err != nil {
		return failed(err)
	}
	if !isLocal(self) {
		return worry("That is right behind a NAT that passes the ports on; else give an address of this host as --advertise.",
			"others are told %s, which is not an address of this host", self)
	}
	return well("others are told %s", self)
}

func lookMTU(ctx context.Context, c *Config) finding {
	self, err := c.advertiseAddr(ctx)
	if err != nil {
		return well("not known without an address")
	}
	mtu, least := c.overlayMTU(self, c.SecretFile != ""), minMTU
	if c.hasIPv6() {
		least = minMTU6
	}
	under := underlayMTU(self)
	switch fits := wire.MTU(under, c.SecretFile != "", self.Is6()); {
	case mtu < least:
		return finding{
			detail: fmt.Sprintf("the underlay's MTU of %d leaves %d bytes for pods", under, mtu),
			mend:   fmt.Sprintf("Raise it: %d is the least.", least), fatal: true,
		}
	case mtu > fits:
		return worry(fmt.Sprintf("Give --mtu %d or less, or 0.", fits), "--mtu %d does not fit the underlay's %d: what is longer is cut or refused", c.MTU, under)
	}
	return well("underlay %d, pods %d", under, mtu)
}

// lookState looks at the state directory without making it.
func lookState(_ context.Context, c *Config) finding {
	dir := c.StateDir
	info, err := os.Stat(dir)
	if errors.Is(err, os.ErrNotExist) {
		for err != nil && dir != filepath.Dir(dir) {
			dir = filepath.Dir(dir)
			_, err = os.Stat(dir)
		}
		if err := checkWritable(dir); err != nil {
			return failed(err)
		}
		return well("%s will be made", c.StateDir)
	}
	switch {
	case err != nil:
		return failed(refuse("--state-dir", "Name a folder that can be read.", "%w", err))
	case !info.IsDir():
		return failed(refuse("--state-dir", "Name a folder.", "%s is a file", dir))
	case info.Mode().Perm()&0o077 != 0 && !holdsOnlyState(dir):
		return failed(refuse("--state-dir", "Name a folder of its own, or make it mode 0700: it holds the node's key.", "%s is open to other users", dir))
	}
	if err := checkWritable(dir); err != nil {
		return failed(err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err == nil && fs.Bavail*uint64(fs.Bsize) < stateRoom {
		return worry("Make room: what cannot be written cannot be given out.", "%s has less than %d MiB left", dir, stateRoom>>20)
	}
	return well("%s can be written", dir)
}

// stateRoom is how many bytes should be left for the state.
const stateRoom = 64 << 20

func lookSecret(_ context.Context, c *Config) finding {
	secrets, err := c.loadSecrets()
	switch {
	case err != nil:
		return failed(err)
	case len(secrets) == 0:
		return worry("Make a secret (\"weft secret generate\") and start all nodes with it in a --secret-file, unless the underlay is trusted.",
			"there is none: the traffic is not encrypted")
	}
	return well("%d in %s", len(secrets), c.SecretFile)
}

func lookClock(context.Context, *Config) finding {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	switch {
	case err != nil: // ProtectClock= of systemd, or a container runtime
		return finding{unknown: true, detail: fmt.Sprintf("not seen from in here: %v", err)}
	case state == unix.TIME_ERROR || t.Status&unix.STA_UNSYNC != 0:
		return worry("Run chronyd or systemd-timesyncd.", "nothing keeps this host's clock right")
	}
	return well("kept right")
}

func lookPeers(ctx context.Context, c *Config) finding {
	var bad []string
	for _, p := range c.Peers {
		t, err := mesh.ParseTarget(p, uint16(c.Port))
		if err != nil {
			return failed(refuse("PEER", "A peer is HOST or HOST:PORT, with an IPv6 address in brackets.", "%w", err))
		}
		d := net.Dialer{Timeout: resolveLimit}
		conn, err := d.DialContext(ctx, "tcp", t.String())
		if err != nil {
			bad = append(bad, fmt.Sprintf("%s (%v)", t, rootCause(err)))
			continue
		}
		_ = conn.Close()
	}
	return peersFound(len(c.Peers), bad, c.Port)
}

// targetsFound is what a node that runs knows of its targets.
func targetsFound(targets []mesh.TargetStatus, port int) finding {
	var bad []string
	for _, t := range targets {
		if t.Err != nil {
			bad = append(bad, fmt.Sprintf("%s (%s)", t.Target, strings.Join(strings.Fields(rootCause(t.Err).Error()), " ")))
		}
	}
	return peersFound(len(targets), bad, port)
}

// peersFound is the finding of all peers that are to be dialled, of which bad are not reached.
func peersFound(all int, bad []string, port int) finding {
	switch {
	case all == 0:
		return well("none is to be dialled")
	case len(bad) > 0:
		return worry(fmt.Sprintf("Start weft there, and open TCP and UDP %d and UDP %d and %d between the nodes.", port, port+1, port+2),
			"not reached: %s", strings.Join(bad, ", "))
	}
	return well("%d of %d reached", all, all)
}
