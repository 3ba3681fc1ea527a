package daemon

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"weft/internal/api"
	"weft/mesh"
)

// waitPoll is how often a wait looks again.
const waitPoll = 20 * time.Millisecond

// maxWait bounds how long one request may wait.
const maxWait = 24 * time.Hour

// handleWait blocks until what the query asks for holds, or the timeout is over.
func (d *Daemon) handleWait(r *http.Request, _ none) (api.WaitResult, error) {
	timeout, err := time.ParseDuration(r.URL.Query().Get("timeout"))
	if err != nil || timeout > maxWait {
		return api.WaitResult{}, problem(api.KindInvalid, "Write a duration such as 30s.", "the timeout makes no sense")
	}
	missing, err := d.condition(r.URL.Query().Get("for"))
	if err != nil {
		return api.WaitResult{}, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), max(timeout, time.Millisecond))
	defer cancel()
	tick := time.NewTicker(waitPoll)
	defer tick.Stop()
	for {
		what := missing(ctx)
		if what == "" {
			return api.WaitResult{Done: true}, nil
		}
		select {
		case <-ctx.Done():
			return api.WaitResult{Missing: what}, nil
		case <-tick.C:
		}
	}
}

// condition returns a function that says what is missing to the given condition; nothing when it holds.
func (d *Daemon) condition(what string) (func(context.Context) string, error) {
	switch {
	case what == api.WaitReady:
		return d.missingReady, nil
	case what == api.WaitIPAM:
		return d.missingIPAM, nil
	case strings.HasPrefix(what, api.WaitPeers):
		n, err := strconv.Atoi(strings.TrimPrefix(what, api.WaitPeers))
		if err != nil || n < 1 {
			return nil, problem(api.KindInvalid, "Write a number of nodes, such as peers=3.", "%q is no number of peers", what)
		}
		return func(context.Context) string { return d.missingPeers(n) }, nil
	}
	return nil, problem(api.KindInvalid, "Wait for ready, ipam or peers=N.", "%q cannot be waited for", what)
}

func (d *Daemon) missingReady(context.Context) string {
	if d.ready() {
		return ""
	}
	return d.missing()
}

// missingIPAM also founds the ring where a lone node was waiting for a reason to.
func (d *Daemon) missingIPAM(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, waitPoll)
	defer cancel()
	err := d.ipam.Prime(ctx)
	if err == nil {
		return ""
	}
	if s := d.ipam.Status(); s.WaitingFor != "" {
		return "waiting for " + s.WaitingFor
	}
	return err.Error()
}

func (d *Daemon) missingPeers(n int) string {
	alive := 0
	for _, m := range d.mesh.Members() {
		if m.State == mesh.StateAlive {
			alive++
		}
	}
	if alive >= n {
		return ""
	}
	return fmt.Sprintf("%d of %d nodes are alive", alive, n)
}
