// Package doctor checks what a node needs of its host. One table holds all checks: "weft doctor" runs them all and reports
// how to fix what is wrong; Preflight runs the fatal ones before a node starts.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"weft/internal/api"
	"weft/internal/hint"
	"weft/internal/settings"
)

// Names of checks that other code refers to.
const (
	checkClock = "clock"
	checkPeers = "peers"
)

// check is one entry of the table.
type check struct {
	name string
	// run looks at the host and changes nothing.
	run func(ctx context.Context, c *settings.Config) finding
	// preflight: a node that starts runs it first, and does not start if the finding is fatal.
	preflight bool
	// exclusive: the check fails beside a running node of the same configuration, which holds what it checks.
	exclusive bool
}

// checks is in the order in which findings are best fixed.
var checks = []check{
	{name: "config", run: checkConfig, preflight: true},
	{name: "privileges", run: checkPrivileges, preflight: true},
	{name: "kernel", run: checkKernel},
	{name: "tun", run: checkTun, preflight: true},
	{name: "modules", run: checkModules},
	{name: "socket", run: checkSocket, preflight: true, exclusive: true},
	{name: "bridge", run: checkBridge, preflight: true},
	{name: "tap", run: checkTap, preflight: true, exclusive: true},
	{name: "host", run: checkHost},
	{name: "ports", run: checkPorts, preflight: true, exclusive: true},
	{name: "vxlan", run: checkVXLAN, preflight: true},
	{name: "wireguard", run: checkWireGuard, preflight: true},
	{name: "nftables", run: checkNFT},
	{name: "forwarding", run: checkForwarding},
	{name: "bridge-nf", run: checkBridgeNF},
	{name: "firewall", run: checkFirewall},
	{name: "rp_filter", run: checkReversePath},
	{name: "neighbors", run: checkNeighbors},
	{name: "range", run: checkOverlap, preflight: true},
	{name: "address", run: checkAddress},
	{name: "mtu", run: checkMTU, preflight: true},
	{name: "state", run: checkState},
	{name: "secret", run: checkSecret},
	{name: checkClock, run: checkClockSync},
	{name: "managers", run: checkManagers},
	{name: checkPeers, run: dialPeers},
}

// finding is the result of a check. Without a remedy all is well.
type finding struct {
	detail  string
	remedy  string // a full sentence
	fatal   error  // why the node would not start, or carry nothing
	unknown bool   // this process may not look
}

// doc returns the finding as the document of the check called name.
func (f finding) doc(name string) api.Check {
	c := api.Check{
		Name: name, Result: api.CheckOK, Remedy: f.remedy,
		Detail: strings.Join(strings.Fields(hint.Plain(f.detail)), " "), // programs print more than one line
	}
	switch {
	case f.fatal != nil:
		c.Result = api.CheckFail
	case f.remedy != "":
		c.Result = api.CheckWarn
	case f.unknown:
		c.Result = api.CheckUnknown
	}
	return c
}

// ok is a finding without a fault.
func ok(format string, args ...any) finding { return finding{detail: fmt.Sprintf(format, args...)} }

// warn is a finding that a node can live with.
func warn(remedy, format string, args ...any) finding {
	return finding{detail: fmt.Sprintf(format, args...), remedy: remedy}
}

// fail is a finding that keeps a node from starting or from carrying frames.
func fail(err error) finding {
	remedy := "Fix the error and run \"weft doctor\" again."
	if e, ok := errors.AsType[*hint.Error](err); ok {
		remedy = e.Hint
	}
	return finding{detail: err.Error(), remedy: remedy, fatal: err}
}

// failOr returns fail(err), or an ok finding for nil.
func failOr(err error, format string, args ...any) finding {
	if err != nil {
		return fail(err)
	}
	return ok(format, args...)
}

// degrade returns f as a finding that a node can live with.
func (f finding) degrade() finding {
	if e, ok := errors.AsType[*hint.Error](f.fatal); ok {
		f.detail = e.Err.Error() // without the flag, which is not at fault
	}
	f.fatal = nil
	return f
}

// Run runs all checks for a node of this configuration. Beside a running node it leaves out those that the node would fail by
// itself.
func Run(ctx context.Context, cfg settings.Config) []api.Check {
	running := answers(ctx, cfg.Socket)
	found := make([]api.Check, 0, len(checks))
	for _, k := range checks {
		if running && k.exclusive {
			found = append(found, ok("held by the node that runs at %s", cfg.Socket).doc(k.name))
			continue
		}
		found = append(found, k.run(ctx, &cfg).doc(k.name))
	}
	return found
}

// Preflight runs the checks without which a node must not start, and returns the error of the first fatal finding. It changes
// nothing on the host. The errors are *hint.Error, except for those of system calls that should not fail.
func Preflight(ctx context.Context, cfg settings.Config) error {
	for _, k := range checks {
		if !k.preflight {
			continue
		}
		if f := k.run(ctx, &cfg); f.fatal != nil {
			return f.fatal
		}
	}
	return nil
}

// Complete runs, in this process, the checks that the node which found these results may not run: a systemd service has no
// access to the clock.
func Complete(found []api.Check) {
	for i, c := range found {
		if c.Name == checkClock && c.Result == api.CheckUnknown {
			found[i] = checkClockSync(context.Background(), nil).doc(checkClock)
		}
	}
}

// Target is what a running node knows about one of its targets.
type Target struct {
	Addr string
	Err  error // why the node does not reach it; nil: it does
}

// ReplacePeers replaces the result of dialing peers by what a running node knows about its targets: it dials them all the time.
func ReplacePeers(found []api.Check, targets []Target, port int) {
	for i, c := range found {
		if c.Name == checkPeers {
			found[i] = targetsFinding(targets, port).doc(checkPeers)
		}
	}
}

// Bounds of the question whether a daemon listens.
const (
	connectTime = time.Second
	answerTime  = 3 * time.Second
)

// answers reports whether a daemon listens at the socket. For a moment, a connection also succeeds after the daemon has been killed: a
// program that it was starting just then has its sockets until it runs. So answers waits for the end of the connection, or for an answer. A
// daemon that accepts and does not answer in time counts as one.
func answers(ctx context.Context, socket string) bool {
	d := net.Dialer{Timeout: connectTime}
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(answerTime))
	if _, err := conn.Write([]byte("HEAD / HTTP/1.0\r\n\r\n")); err != nil {
		return os.IsTimeout(err)
	}
	_, err = conn.Read(make([]byte, 1))
	return err == nil || os.IsTimeout(err)
}
