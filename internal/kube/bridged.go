package kube

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

// bridgedPeriod is the time between two checks of the settings for bridged packets. The kernel does not report changes of sysctls.
const bridgedPeriod = 500 * time.Millisecond

// Visibility keeps the packets between pods of this node visible to the host's packet filter. bridgenf.Keeper is one.
type Visibility interface {
	// Restore turns on the settings that are off, and returns those that had hidden packets. On an error, packets are not visible.
	Restore() (restored []string, err error)
}

// bridged restores the settings that make bridged packets visible, and reports while it cannot.
type bridged struct {
	settings Visibility
	health   *health
	log      *slog.Logger
	restored atomic.Uint64 // how often a setting was restored
}

// run keeps the settings until ctx ends.
func (b *bridged) run(ctx context.Context) error {
	if b.settings == nil {
		b.health.set(checkBridged, nil)
		return nil
	}
	failed := ""
	return every(ctx, bridgedPeriod, func() {
		restored, err := b.settings.Restore()
		b.health.set(checkBridged, err)
		for _, name := range restored {
			b.restored.Add(1)
			b.log.Warn("another program has hidden packets between pods of this node from the host's packet filter: restored", "setting", name)
		}
		switch {
		case err == nil:
			failed = ""
		case err.Error() != failed:
			failed = err.Error()
			b.log.Error("packets between pods of this node are not visible to the host's packet filter", "err", err)
		}
	})
}
