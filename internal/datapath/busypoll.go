package datapath

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"weft/internal/cpulatency"
	"weft/internal/health"
	"weft/internal/settings"
)

// openKeeper returns what keeps CPUs awake while frames come, nil unless --busy-poll wants it and the host can.
func (d *Datapath) openKeeper() (*cpulatency.Keeper, error) {
	if d.settings.BusyPoll != settings.BusyPollAuto {
		return nil, nil
	}
	k, err := cpulatency.Open()
	if err != nil {
		d.log.Warn("--busy-poll has no effect on this host", "err", err)
		return nil, err
	}
	d.log.Info("idle CPUs stay awake while frames of pods come", "cpuidle", k.Driver(), "latency", k.Latency())
	return k, nil
}

// runKeeper runs the keeper of e until ctx ends. The datapath works without it.
func (d *Datapath) runKeeper(ctx context.Context, e *engines) {
	if err := e.keeper.Run(ctx); err != nil {
		e.keeperErr.Store(&err)
		d.log.Warn("idle CPUs do not stay awake any more", "err", err)
	}
}

// busyPollFindings reports that --busy-poll has no effect.
func (d *Datapath) busyPollFindings() []health.Finding {
	e := d.current.Load()
	if e == nil {
		return nil
	}
	err := e.keeperErr.Load()
	if err == nil {
		return nil
	}
	return []health.Finding{busyPollFinding(*err)}
}

// busyPollFinding returns the finding for an error of cpulatency.Open.
func busyPollFinding(err error) health.Finding {
	remedy := "Give weft read and write access to /dev/cpu_dma_latency (in a container: privileged), or start it without --busy-poll."
	switch {
	case errors.Is(err, cpulatency.ErrIgnored):
		remedy = "On a KVM guest, boot with cpuidle_haltpoll.force=1; elsewhere start weft without --busy-poll."
	case errors.Is(err, fs.ErrNotExist):
		remedy = "In a container, mount /dev/cpu_dma_latency of the host and make the container privileged. A kernel without CONFIG_CPU_IDLE " +
			"has no such device: start weft without --busy-poll."
	}
	return health.Finding{
		Code: health.BusyPollUnavailable, Text: fmt.Sprintf("--busy-poll has no effect on this host: %s.", err), Remedy: remedy,
	}
}
