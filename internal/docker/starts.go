package docker

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"weft/internal/api"
	"weft/internal/dockerapi"
)

// Restart policies with which Docker starts a container when it starts itself.
var restarted = []string{"always", "unless-stopped"}

// Pauses before a container that could not start is started again: the first, which doubles, and the longest.
const (
	startPause     = 5 * time.Second
	startPauseMost = 5 * time.Minute
	startTime      = time.Minute
)

// startOf is what Run knows about a container that it has started.
type startOf struct {
	at    time.Time
	pause time.Duration // before the next attempt
}

// failedWithoutWeft reports whether a container could not be started because weft was away, and for no other reason.
func (p *Plugin) failedWithoutWeft(failure string) bool {
	for _, part := range []string{
		api.ErrNoDaemon.Error(), p.cfg.Driver + ".sock",
		fmt.Sprintf("plugin %q not found", p.cfg.Driver), fmt.Sprintf("plugin %q not found", p.cfg.Driver+":latest"),
	} {
		if strings.Contains(failure, part) {
			return true
		}
	}
	return false
}

// startFailed starts containers that Docker could not start because weft was away. Docker itself does not try again.
func (p *Plugin) startFailed(ctx context.Context, containers []dockerapi.Container) {
	now := time.Now()
	waiting := map[string]startOf{}
	for _, c := range containers {
		if c.Running || !p.failedWithoutWeft(c.Failure) || !slices.Contains(restarted, c.RestartPolicy) {
			continue
		}
		last, again := p.starts[c.ID]
		if again && now.Sub(last.at) < last.pause {
			waiting[c.ID] = last
			continue
		}
		waiting[c.ID] = startOf{at: now, pause: min(max(startPause, 2*last.pause), startPauseMost)}
		go p.start(context.WithoutCancel(ctx), c)
	}
	p.starts = waiting
}

// start starts a container, which may wait for weft.
func (p *Plugin) start(ctx context.Context, c dockerapi.Container) {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	if err := p.cfg.Engine.Start(ctx, c.ID); err != nil {
		p.log.Warn("cannot start a container that could not start while weft was away", "container", c.Name, "err", err)
		return
	}
	p.log.Info("started a container that could not start while weft was away", "container", c.Name)
}
