package daemon

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"weft/internal/peer"
	"weft/mesh"
	"weft/mesh/topology"
	"weft/router"
)

// controlMesh is the mesh's part of the control messages among nodes.
const controlMesh = router.MinControl

// Times of finding out whether others reach this node.
const (
	reachFirst  = time.Second      // between attempts until there is an answer
	reachInside = 30 * time.Second // while it can only dial out: that may change
	reachOpen   = 10 * time.Minute
	// reachHelpers is how many others are asked, until one says yes; guardians is how many sessions a node keeps that can
	// only dial out.
	reachHelpers = 3
	guardians    = 3
)

// reach is what this node knows of how others reach it, and tells them.
type reach struct {
	d *Daemon

	mu      sync.Mutex
	links   router.Links // guarded by mu: as the router last said
	dialOut bool         // guarded by mu
}

// onLinks takes from the router what it has found out about links.
func (r *reach) onLinks(l router.Links) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.links = l
	r.tell()
}

// setDialOut notes whether this node is reached only over links that it opens.
func (r *reach) setDialOut(dialOut bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dialOut != dialOut {
		r.d.log.Info("others reach this node", "dial-out-only", dialOut)
	}
	r.dialOut = dialOut
	r.tell()
}

// tell tells the others; mu is held.
func (r *reach) tell() {
	l := topology.Links{DialOut: r.dialOut, Broken: r.links.Broken}
	if l.DialOut {
		l.Open = r.links.Open
	}
	r.d.mesh.SetLinks(l)
}

func (r *reach) isDialOut() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dialOut
}

// run finds out, again and again until ctx ends, whether others reach this node, and where they do not has sessions
// kept by which they do.
func (r *reach) run(ctx context.Context, engine *router.Engine) {
	for pause := reachFirst; ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		dialOut, known := r.ask(ctx, engine)
		if ctx.Err() != nil {
			return
		}
		if known {
			r.setDialOut(dialOut)
			pause = reachOpen
			if dialOut {
				pause = reachInside
			}
		}
		engine.KeepSessions(r.guardians())
	}
}

// ask has others knock at this node's door. known is false where none of them could be asked.
func (r *reach) ask(ctx context.Context, engine *router.Engine) (dialOut, known bool) {
	for _, id := range r.helpers(reachHelpers) {
		came, err := engine.RequestDialBack(ctx, id)
		switch {
		case err != nil:
		case came:
			return false, true
		default:
			dialOut, known = true, true
		}
	}
	return dialOut, known
}

// guardians returns the peers with which sessions are kept while this node can only dial out.
func (r *reach) guardians() []peer.ID {
	if !r.isDialOut() {
		return nil
	}
	return r.helpers(guardians)
}

// helpers returns up to most peers that others reach, the nearest first.
func (r *reach) helpers(most int) (ids []peer.ID) {
	members := r.d.mesh.Members()
	members = slices.DeleteFunc(members, func(m mesh.Member) bool { return !isLivePeer(m) || m.DialOut })
	slices.SortStableFunc(members, func(a, b mesh.Member) int { return int(a.RTT.Round(time.Millisecond) - b.RTT.Round(time.Millisecond)) })
	for _, m := range members[:min(len(members), most)] {
		ids = append(ids, m.ID)
	}
	return ids
}

// knock sends a datagram from a port from which nothing was sent before.
func (d *Daemon) knock(to netip.AddrPort, datagram []byte) {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err == nil {
		_, err = conn.Write(datagram)
		_ = conn.Close()
	}
	if err != nil {
		d.log.Debug("knocking for a peer", "addr", to, "err", err)
	}
}

// onControl takes control messages from the router.
func (d *Daemon) onControl(from peer.ID, to uint8, message []byte) {
	if to == controlMesh {
		d.mesh.FromTunnel(from, message)
	}
}

// tunnel is the router's sessions as the mesh sees them.
type tunnel struct{ d *Daemon }

// Send implements mesh.Tunnel.
func (t tunnel) Send(to peer.ID, msg []byte) error {
	p := t.d.plane.Load()
	if p == nil {
		return errStarting()
	}
	return p.router.SendControl(to, controlMesh, msg)
}

// Open implements mesh.Tunnel.
func (t tunnel) Open(to peer.ID) bool {
	p := t.d.plane.Load()
	return p != nil && p.router.HasSession(to)
}
