package daemon

import (
	"context"
	"net/http"
	"time"

	"weft/internal/api"
)

// leaveGrace is how long the daemon lives on after "weft leave" is answered: long enough to send the answer.
const leaveGrace = 200 * time.Millisecond

// handleLeave gives the node's address space away, says good-bye, takes the host off the overlay and stops the daemon.
func (d *Daemon) handleLeave(r *http.Request, _ none) (api.LeaveResult, error) {
	p := d.plane.Load()
	if p == nil {
		return api.LeaveResult{}, errStarting()
	}
	ctx := context.WithoutCancel(r.Context()) // a client that hangs up must not stop it half way
	heir, released, err := d.ipam.Leave(ctx)
	if err != nil {
		return api.LeaveResult{}, ipamProblem(err)
	}
	if err := d.forgetNames(); err != nil {
		d.log.Warn("taking back this node's names", "err", err)
	}
	if err := p.clear(ctx); err != nil {
		d.log.Warn("taking the host off the overlay", "err", err)
	}
	if err := d.mesh.Leave(); err != nil {
		d.log.Warn("saying good-bye", "err", err)
	}
	d.log.Info("left the network", "peer", d.identity.ID)
	time.AfterFunc(leaveGrace, d.stop)
	return api.LeaveResult{Released: released, GivenTo: heir, Name: d.nameOf(heir)}, nil
}
