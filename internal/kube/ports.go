package kube

import (
	"context"
	"maps"
	"net/netip"
	"time"

	"weft/internal/podlink"
)

// portsPeriod is the time between two searches for ports.
const portsPeriod = 2 * time.Second

// ports finds the ports of pods that the plugin announced without one: a plugin of an older version did. One goroutine uses it.
type ports struct {
	daemon Daemon
	byAddr map[netip.Addr]string // found names of ports by the address of their pod
	next   time.Time             // of the next search
}

// search looks for ports on the bridge, unless it did so a moment ago, and reports whether it found others than before. Pods without
// a port stay judged by address alone.
func (p *ports) search(ctx context.Context) bool {
	if now := time.Now(); now.Before(p.next) {
		return false
	}
	p.next = time.Now().Add(portsPeriod)
	status, err := p.daemon.Status(ctx)
	if err != nil || status.Bridge == "" {
		return false
	}
	list, err := podlink.Ports(status.Bridge)
	if err != nil {
		return false
	}
	found := map[netip.Addr]string{}
	for _, port := range list {
		if port.Look() && port.Err == nil {
			for _, ip := range port.Addrs {
				found[ip] = port.Name
			}
		}
	}
	if maps.Equal(found, p.byAddr) {
		return false
	}
	p.byAddr = found
	return true
}
