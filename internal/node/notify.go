package node

import (
	"context"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// notifyPeriod is how often the service manager gets the state, unless its watchdog needs it more often.
const notifyPeriod = 5 * time.Second

// notifyServiceManager reports to the service manager that started this process (sd_notify(3)): that the datapath is up, what the
// node waits for, and periodically that it is alive, until ctx ends. Without a service manager it returns at once.
//
// Up does not mean ready for pods: the node may have to wait for others to divide the range, and the service manager would not
// wait indefinitely for a service to start.
func (n *node) notifyServiceManager(ctx context.Context) {
	if sent, err := daemon.SdNotify(false, "STATUS=starting"); !sent || err != nil {
		return
	}
	period := notifyPeriod
	if watchdog, err := daemon.SdWatchdogEnabled(false); err == nil && watchdog > 0 {
		period = min(period, watchdog/2)
	}
	tick := time.NewTicker(min(period, 500*time.Millisecond)) // until the datapath is up
	defer tick.Stop()
	for up := false; ; {
		select {
		case <-ctx.Done():
			n.notify(daemon.SdNotifyStopping)
			return
		case <-tick.C:
		}
		// These calls take the locks of the engines. If one of them hangs, the watchdog restarts the node.
		state := "STATUS=ready"
		if missing := n.health.Missing(); missing != "" {
			state = "STATUS=" + missing
		}
		n.mesh.Members()
		if !up && n.datapath.Up() {
			up = true
			tick.Reset(period)
			n.notify(daemon.SdNotifyReady)
		}
		n.notify(state + "\n" + daemon.SdNotifyWatchdog)
	}
}

func (n *node) notify(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		n.log.Debug("cannot notify the service manager", "err", err)
	}
}
