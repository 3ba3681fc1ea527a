package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/hint"
	"weft/internal/hostnet"
	"weft/internal/hostroutes"
	"weft/internal/podlink"
	"weft/internal/settings"
	"weft/internal/statedir"
	"weft/ipam/store"
	"weft/router/wire"
	"weft/tap/bridge"
)

// The checks of this file concern what the configuration names: files, devices, ports, addresses.

func checkConfig(_ context.Context, c *settings.Config) finding {
	return failOr(c.Validate(), "flags, environment and file are valid")
}

func checkBridge(_ context.Context, c *settings.Config) finding {
	info, err := bridge.Inspect(c.Bridge)
	if err != nil {
		return fail(fmt.Errorf("doctor: inspecting %s: %w", c.Bridge, err))
	}
	if info.State == bridge.Other {
		return fail(hint.Refuse("--bridge", "Choose another name, or remove that link.", "%s exists and is not a bridge but a link of kind %q",
			c.Bridge, info.Kind))
	}
	return ok("%s is free, or belongs to weft", c.Bridge)
}

func checkTap(_ context.Context, c *settings.Config) finding {
	info, err := bridge.Inspect(c.Tap)
	if err != nil {
		return fail(fmt.Errorf("doctor: inspecting %s: %w", c.Tap, err))
	}
	if info.State != bridge.Absent {
		return fail(hint.Refuse("--tap", "Choose another name, or stop the program that holds that link, such as another weft.",
			"%s is in use by a link of kind %q", c.Tap, info.Kind))
	}
	return ok("%s is free", c.Tap)
}

// checkSocket refuses to start beside another daemon at the same socket.
func checkSocket(ctx context.Context, c *settings.Config) finding {
	if info, err := os.Lstat(c.Socket); err == nil && info.Mode().Type() != fs.ModeSocket {
		return fail(hint.Refuse("--socket", "Name another path, or remove that file.", "%s exists and is not a socket", c.Socket))
	}
	if answers(ctx, c.Socket) { // a socket that a crash left behind does not answer, and is replaced
		return fail(hint.Refuse("--socket", "Stop it first, or give this one its own --socket, --state-dir, --bridge, --tap and --port.",
			"another weft daemon answers at %s", c.Socket))
	}
	return ok("%s is free", c.Socket)
}

func checkPorts(ctx context.Context, c *settings.Config) finding {
	for _, p := range []struct {
		network string
		port    int
		use     string
	}{{"tcp", c.Port, "gossip"}, {"udp", c.Port, "gossip"}, {"udp", int(c.DataPort()), "data"}} {
		if err := tryListen(ctx, p.network, ":"+strconv.Itoa(p.port)); err != nil {
			return fail(hint.Refuse("--port", "Stop the program that listens there (ss -lnptu shows it), or choose another port on all nodes.",
				"%s port %d for %s: %w", p.network, p.port, p.use, rootCause(err)))
		}
	}
	if c.HTTPAddr != "" {
		if err := tryListen(ctx, "tcp", c.HTTPAddr); err != nil {
			return fail(hint.Refuse("--http-addr", "Choose another address, or an empty one to turn it off.", "%s: %w", c.HTTPAddr, rootCause(err)))
		}
	}
	return ok("TCP and UDP %d, UDP %d and %s are free", c.Port, c.DataPort(), c.HTTPAddr)
}

func tryListen(ctx context.Context, network, addr string) error {
	var lc net.ListenConfig
	if network == "udp" {
		conn, err := lc.ListenPacket(ctx, network, addr)
		if err != nil {
			return err
		}
		return conn.Close()
	}
	l, err := lc.Listen(ctx, network, addr)
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

// checkOverlap refuses a range if the host would route a part of it elsewhere than to the bridge, or if the range would hide hosts
// that the node needs. A node with pods starts nevertheless: without it they have no network at all.
// See docs/adr/0033-what-the-host-does-to-pods.md.
func checkOverlap(_ context.Context, c *settings.Config) finding {
	free := ok("no route of the host takes a part of %s", joinRanges(c))
	if c.AllowOverlap {
		return free
	}
	tables, err := hostroutes.Read(c.Ranges)
	if err != nil {
		return fail(fmt.Errorf("doctor: reading the host's routes: %w", err))
	}
	for _, rng := range c.Ranges {
		if f := overlap(c, tables.With(hostroutes.Connected(rng, c.Bridge)), rng); f.fatal != nil {
			return withPods(c, f)
		}
	}
	return free
}

// withPods returns a finding of a node that may have pods already: it starts nevertheless, as without it they have no network at all.
func withPods(c *settings.Config, f finding) finding {
	if store.HasLeases(c.StateDir) {
		return f.degrade()
	}
	return f
}

// overlap is the finding about one range, with the route of the bridge in the tables.
func overlap(c *settings.Config, tables hostroutes.Tables, rng netip.Prefix) finding {
	const remedy = "Choose a range that is free on every host, remove the route, or set --allow-overlap."
	if found := hostroutes.Elsewhere(tables, rng, c.Bridge); len(found) > 0 {
		return fail(hint.Refuse("--range", remedy, "%s overlaps the host's route %s: this host would not reach pods in %s",
			rng, found[0].Route, found[0].Part))
	}
	var peers []netip.Addr
	for _, t := range c.Targets() {
		if a, err := netip.ParseAddr(t.Host); err == nil {
			peers = append(peers, a.Unmap())
		}
	}
	if hidden := hostroutes.Hidden(tables, rng, c.Bridge, peers); len(hidden) > 0 {
		return fail(hint.Refuse("--range", "Choose a range without the addresses of hosts, or set --allow-overlap.",
			"%s contains %s, which this host needs outside the overlay", rng, hidden[0]))
	}
	return ok("free")
}

func joinRanges(c *settings.Config) string {
	texts := make([]string, len(c.Ranges))
	for i, r := range c.Ranges {
		texts[i] = r.String()
	}
	return strings.Join(texts, " and ")
}

func checkAddress(ctx context.Context, c *settings.Config) finding {
	self, err := c.AdvertiseAddr(ctx)
	if err != nil {
		return fail(err)
	}
	local, err := hostnet.IsLocal(self)
	if err != nil {
		return fail(err)
	}
	if !local {
		return warn("This is correct behind a NAT that forwards the ports; otherwise set --advertise to an address of this host.",
			"other nodes learn %s, which is not an address of this host", self)
	}
	return ok("other nodes learn %s", self)
}

func checkMTU(ctx context.Context, c *settings.Config) finding {
	self, err := c.AdvertiseAddr(ctx)
	if err != nil {
		return ok("not known without an address")
	}
	sealed := c.Sealed()
	underlay, err := hostnet.UnderlayMTU(self)
	if err != nil {
		return fail(err)
	}
	mtu, err := c.OverlayMTU(self, sealed)
	if err != nil {
		return fail(err)
	}
	least := c.MinOverlayMTU()
	link := hostnet.LinkOf(self)
	known := link != "" // behind a NAT, the interface with the address is on another device
	switch fits := wire.MTU(underlay, sealed, self.Is6()); {
	case mtu < least:
		return withPods(c, fail(hint.Refuse("--mtu", fmt.Sprintf("Raise the MTU of the underlay: pods need at least %d bytes.", least),
			"the underlay's MTU of %d leaves %d bytes for pods", underlay, mtu)))
	case mtu > fits && known:
		f := fail(hint.Refuse("--mtu", fmt.Sprintf("Choose %d or less, or 0 for the largest that fits, or raise the MTU of %s.", fits, link),
			"%d does not fit the underlay: %s has an MTU of %d, which leaves %d for pods", c.MTU, link, underlay, fits))
		return withPods(c, f)
	}
	if large := podsAbove(c.Bridge, mtu); len(large) > 0 {
		return warn("Start the daemon again, which reduces it, and restart the pods that weft status still names (pod_mtu_large).",
			"pods have a larger MTU than the %d bytes that the overlay carries: %s", mtu, strings.Join(large, ", "))
	}
	return ok("underlay %d, pods %d", underlay, mtu)
}

// podsAbove returns the names of pods' links on a bridge that have an MTU above mtu bytes, with it.
func podsAbove(bridge string, mtu int) (names []string) {
	ports, err := podlink.Ports(bridge)
	if err != nil {
		return nil
	}
	for _, p := range ports {
		if has, err := p.PodMTU(); err == nil && has > mtu {
			names = append(names, fmt.Sprintf("%s (%d)", p.Name, has))
		}
	}
	return names
}

func checkState(_ context.Context, c *settings.Config) finding {
	exists, err := statedir.Check(c.StateDir)
	switch {
	case err != nil:
		return fail(err)
	case !exists:
		return ok("%s will be created", c.StateDir)
	}
	if err := statedir.CheckDisk(c.StateDir); err != nil {
		return fail(err)
	}
	if low, limit := statedir.LowSpace(c.StateDir); low {
		return warn("Free space on its file system: a lease that cannot be written is not granted.", "%s has less than %d MiB left",
			c.StateDir, limit>>20)
	}
	return ok("%s can be written", c.StateDir)
}

func checkSecret(_ context.Context, c *settings.Config) finding {
	if err := statedir.CheckSealed(c.StateDir, c.Protected(), c.Plain); err != nil {
		return fail(err)
	}
	secrets, err := c.LoadSecrets()
	file, identityErr := c.LoadIdentity()
	switch {
	case err != nil:
		return fail(err)
	case identityErr != nil:
		return fail(identityErr)
	case len(file.CAs) > 0 && len(secrets) == 0:
		return ok("a certificate in %s", c.IdentityFile)
	case len(file.CAs) > 0:
		return ok("%d in %s, and a certificate in %s", len(secrets), c.SecretFile, c.IdentityFile)
	case len(secrets) == 0:
		return warn("Create a secret (\"weft secret generate\") and start all nodes with it in a --secret-file, unless the underlay is trusted.",
			"there is none: the traffic is not encrypted")
	}
	return ok("%d in %s", len(secrets), c.SecretFile)
}

// checkClockSync does not use its configuration, which may be nil.
func checkClockSync(context.Context, *settings.Config) finding {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	switch {
	case err != nil: // ProtectClock= of systemd, or a container runtime
		return finding{unknown: true, detail: fmt.Sprintf("this process cannot read it: %v", err)}
	case state == unix.TIME_ERROR || t.Status&unix.STA_UNSYNC != 0:
		return warn("Run chronyd or systemd-timesyncd.", "no program synchronizes this host's clock")
	}
	return ok("synchronized")
}

// dialTimeout bounds one connection to a peer.
const dialTimeout = 2 * time.Second

func dialPeers(ctx context.Context, c *settings.Config) finding {
	var found []Target
	for _, t := range c.Targets() {
		d := net.Dialer{Timeout: dialTimeout}
		conn, err := d.DialContext(ctx, "tcp", t.String())
		if err == nil {
			_ = conn.Close()
		}
		found = append(found, Target{Addr: t.String(), Err: err})
	}
	return targetsFinding(found, c.Port)
}

// targetsFinding is the finding about all targets of a node.
func targetsFinding(targets []Target, port int) finding {
	if len(targets) == 0 {
		return ok("there are none to dial")
	}
	var bad []string
	for _, t := range targets {
		if t.Err != nil {
			bad = append(bad, fmt.Sprintf("%s (%s)", t.Addr, strings.Join(strings.Fields(rootCause(t.Err).Error()), " ")))
		}
	}
	if len(bad) > 0 {
		return warn(fmt.Sprintf("Start weft there, and open TCP and UDP %d and UDP %d and %d between the nodes.", port, port+1, port+2),
			"not reached: %s", strings.Join(bad, ", "))
	}
	return ok("%d of %d reached", len(targets), len(targets))
}
