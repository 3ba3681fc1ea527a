package kube

import (
	"context"
	"errors"
	"time"
)

// Periods of checks of files and of the daemon, and the timeout of one call.
const (
	installPeriod = time.Second
	callTimeout   = 5 * time.Second
)

// bounded returns a context for one call on this host. The caller must cancel it.
func bounded() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), callTimeout)
}

// install keeps the plugin installed and, once a pod can be added, the configuration that makes runtimes use it. It also publishes
// the conditions of the daemon.
func (a *Agent) install(ctx context.Context) error {
	return every(ctx, installPeriod, func() {
		err := a.lookAtDaemon(ctx)
		a.health.set(checkDaemon, err)
		a.health.set(checkPlugin, a.installPlugin(errors.Join(err, a.health.get(checkPolicies)) == nil))
	})
}

// lookAtDaemon publishes the conditions of the daemon, and returns nil if the daemon is ready for pods.
func (a *Agent) lookAtDaemon(ctx context.Context) error {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	status, err := a.cfg.Daemon.Status(call)
	if err != nil {
		return err
	}
	a.conditions.observe(time.Now(), status.Conditions)
	if !status.Ready {
		return errors.New("not ready: address space " + string(status.IPAM))
	}
	return nil
}

// installPlugin installs missing and outdated files; the configuration only if ready.
func (a *Agent) installPlugin(ready bool) error {
	if changed, err := a.cfg.Install.Plugins(); err != nil {
		a.cfg.Log.Error("installing the plugin failed", "err", err)
		return err
	} else if len(changed) > 0 {
		a.cfg.Log.Info("plugins installed", "plugins", changed, "dir", a.cfg.Install.BinDir)
	}
	if !ready {
		return a.cfg.Install.Installed()
	}
	if changed, err := a.cfg.Install.Configuration(); err != nil {
		a.cfg.Log.Error("writing the configuration of the runtime failed", "err", err)
		return err
	} else if changed {
		a.cfg.Log.Info("pods can be added: configuration of the runtime written", "dir", a.cfg.Install.ConfDir)
	}
	return nil
}
