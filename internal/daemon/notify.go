package daemon

import (
	"context"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// notifyEach is how often the service manager is told how it stands, where it does not watch more closely.
const notifyEach = 5 * time.Second

// notify tells the service manager that has started this process how it stands (sd_notify(3)): that the data plane is up, what is being waited for, and
// again and again that it is alive, until ctx ends. Where no service manager listens it returns at once.
//
// Up does not mean ready for pods: founders may have to be waited for, and a service that does not start would not be waited for for ever.
func (d *Daemon) notify(ctx context.Context) {
	if sent, err := daemon.SdNotify(false, "STATUS=starting"); !sent || err != nil {
		return
	}
	each := notifyEach
	if watched, err := daemon.SdWatchdogEnabled(false); err == nil && watched > 0 {
		each = min(each, watched/2)
	}
	tick := time.NewTicker(min(each, 500*time.Millisecond)) // until it is up
	defer tick.Stop()
	for up := false; ; {
		select {
		case <-ctx.Done():
			d.tell(daemon.SdNotifyStopping)
			return
		case <-tick.C:
		}
		// What hangs here hangs for everybody: the watchdog is right to bite.
		state := "STATUS=ready"
		if !d.ready() {
			state = "STATUS=" + d.missing()
		}
		d.mesh.Members()
		if !up && d.plane.Load() != nil {
			up = true
			tick.Reset(each)
			d.tell(daemon.SdNotifyReady)
		}
		d.tell(state + "\n" + daemon.SdNotifyWatchdog)
	}
}

func (d *Daemon) tell(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		d.log.Debug("telling the service manager", "err", err)
	}
}
