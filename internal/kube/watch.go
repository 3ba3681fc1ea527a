package kube

import (
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"time"
)

// Times of looking at files and at the daemon.
const (
	installPeriod = time.Second
	secretPeriod  = 2 * time.Second
	callTimeout   = 5 * time.Second
)

// bounded returns a context for one call of something local.
func bounded() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), callTimeout)
}

// install keeps the plugin where it belongs and, once a pod could be added, the configuration that has runtimes use it.
func (a *Agent) install(ctx context.Context) error {
	return every(ctx, installPeriod, func() {
		call, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		status, err := a.cfg.Daemon.Status(call)
		if err == nil && !status.Ready {
			err = errors.New("not ready: address space " + string(status.IPAM))
		}
		a.health.set(checkDaemon, err)
		a.health.set(checkPlugin, a.installPlugin(errors.Join(err, a.health.get(checkPolicies)) == nil))
	})
}

// installPlugin puts the files where they belong that are not there; the configuration only if ready.
func (a *Agent) installPlugin(ready bool) error {
	if changed, err := a.cfg.Install.Plugins(); err != nil {
		a.cfg.Log.Error("installing the plugin", "err", err)
		return err
	} else if len(changed) > 0 {
		a.cfg.Log.Info("plugins installed", "plugins", changed, "dir", a.cfg.Install.BinDir)
	}
	if !ready {
		return a.cfg.Install.Installed()
	}
	if changed, err := a.cfg.Install.Configuration(); err != nil {
		a.cfg.Log.Error("writing the configuration of the runtime", "err", err)
		return err
	} else if changed {
		a.cfg.Log.Info("pods can be added: configuration of the runtime written", "dir", a.cfg.Install.ConfDir)
	}
	return nil
}

// watchSecret has the daemon read its secrets again when their file has changed.
func (a *Agent) watchSecret(ctx context.Context) error {
	if a.cfg.SecretFile == "" {
		<-ctx.Done()
		return ctx.Err()
	}
	digest := func() (sum [sha256.Size]byte, ok bool) {
		text, err := os.ReadFile(a.cfg.SecretFile)
		return sha256.Sum256(text), err == nil
	}
	known, ok := digest()
	return every(ctx, secretPeriod, func() {
		sum, there := digest()
		if !there || ok && sum == known {
			return
		}
		call, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		if _, err := a.cfg.Daemon.Reload(call); err != nil {
			a.cfg.Log.Warn("the secret has changed, and the daemon does not take it yet", "err", err)
			return
		}
		known, ok = sum, true
		a.cfg.Log.Info("the secret has changed: the daemon has read it")
	})
}
