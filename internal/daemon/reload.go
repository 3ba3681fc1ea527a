package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"slices"

	"weft/internal/api"
	"weft/internal/secret"
)

// Program is what the process around a node gives it beside its configuration.
type Program struct {
	Log *slog.Logger
	// Level is Log's, for a reload to change.
	Level *slog.LevelVar
	// Reread evaluates the configuration once more, as at the start: flags, environment, file. It is called by one
	// goroutine at a time. Its errors are for people; *api.Problem and *Refusal have a mend as well.
	Reread func() (Config, error)
	// Hangups asks for a reload, as "weft reload" does; nil never does.
	Hangups <-chan os.Signal
}

// setting is a flag and what it is set to.
type setting struct {
	flag  string
	value func(c *Config) any
}

// restartSettings are what takes effect at the next start only, by flag.
var restartSettings = []setting{
	{"--name", func(c *Config) any { return c.Name }},
	{"--state-dir", func(c *Config) any { return c.StateDir }},
	{"--socket", func(c *Config) any { return c.Socket }},
	{"--bridge", func(c *Config) any { return c.Bridge }},
	{"--tap", func(c *Config) any { return c.Tap }},
	{"--port", func(c *Config) any { return c.Port }},
	{"--advertise", func(c *Config) any { return c.Advertise }},
	{"--range", func(c *Config) any { return c.Ranges }},
	{"--init-peers", func(c *Config) any { return c.InitPeers }},
	{"--secret-file", func(c *Config) any { return c.SecretFile != "" }},
	{"--cipher", func(c *Config) any { return c.Cipher }},
	{"--datapath", func(c *Config) any { return c.Datapath }},
	{"--offload", func(c *Config) any { return c.Offload }},
	{"--mtu", func(c *Config) any { return c.MTU }},
	{"--queues", func(c *Config) any { return c.Queues }},
	{"--no-discovery", func(c *Config) any { return c.NoDiscovery }},
	{"--no-masquerade", func(c *Config) any { return c.NoMasquerade }},
	{"--allow-overlap", func(c *Config) any { return c.AllowOverlap }},
	{"--http-addr", func(c *Config) any { return c.HTTPAddr }},
	{"--lease-grace", func(c *Config) any { return c.LeaseGrace }},
	{"--no-arp-proxy", func(c *Config) any { return c.NoARPProxy }},
	{"--no-dns", func(c *Config) any { return c.NoDNS }},
	{"--take-over", func(c *Config) any { return c.TakeOver }},
	{"--log-format", func(c *Config) any { return c.LogFormat }},
}

// allSettings are all flags of a node. Of the secret file only whether there is one is told.
func allSettings() []setting {
	return append([]setting{
		{"--trusted-subnets", func(c *Config) any { return c.TrustedSubnets }},
		{"--log-level", func(c *Config) any { return c.LogLevel }},
		{"PEER", func(c *Config) any { return c.Peers }},
	}, restartSettings...)
}

// reload reads configuration and secret file again and applies what can change while the node runs. Where something is
// wrong with them, the error says so as at a start, and nothing has changed.
func (d *Daemon) reload() (api.Reload, error) {
	d.reloadMu.Lock()
	defer d.reloadMu.Unlock()
	cfg, err := d.program.Reread()
	if err != nil {
		return api.Reload{}, err
	}
	if err := cfg.Validate(); err != nil {
		return api.Reload{}, err
	}
	secrets, err := cfg.loadSecrets()
	if err != nil {
		return api.Reload{}, err
	}
	r := api.Reload{Applied: []string{}, Restart: []string{}}
	old := d.secretList()
	if len(old) > 0 && len(secrets) > 0 && !slices.Equal(gossipKeys(old), gossipKeys(secrets)) {
		if err := d.applySecrets(secrets); err != nil { // first: nothing after it can fail
			return api.Reload{}, err
		}
		r.Applied = append(r.Applied, "--secret-file")
	}
	if !slices.Equal(d.given.TrustedSubnets, cfg.TrustedSubnets) {
		d.applyTrusted(cfg.TrustedSubnets)
		r.Applied = append(r.Applied, "--trusted-subnets")
	}
	if d.given.LogLevel != cfg.LogLevel {
		d.program.Level.Set(cfg.LogLevel)
		r.Applied = append(r.Applied, "--log-level")
	}
	for _, s := range restartSettings {
		if fmt.Sprint(s.value(&d.given)) != fmt.Sprint(s.value(&cfg)) {
			r.Restart = append(r.Restart, s.flag)
		}
	}
	d.given.TrustedSubnets, d.given.LogLevel = cfg.TrustedSubnets, cfg.LogLevel
	r.Secrets = len(d.secretList())
	return r, nil
}

// applyTrusted takes the subnets to which data is not encrypted in place of those in use.
func (d *Daemon) applyTrusted(list []netip.Prefix) {
	d.trusted.Store(&list)
	if p := d.plane.Load(); p != nil {
		p.router.SetTrusted(list)
		d.syncPeers()
	}
}

// handleReload answers PUT /v1/reload.
func (d *Daemon) handleReload(*http.Request, none) (api.Reload, error) {
	r, err := d.reload()
	d.logReload(r, err)
	if err == nil {
		return r, nil
	}
	if p, ok := errors.AsType[*api.Problem](err); ok {
		return api.Reload{}, p
	}
	if refusal, ok := errors.AsType[*Refusal](err); ok {
		return api.Reload{}, problem(api.KindRefused, refusal.Hint, "%v", refusal)
	}
	return api.Reload{}, problem(api.KindRefused, "", "%v", err)
}

// watchHangups reloads at each hang-up until ctx ends.
func (d *Daemon) watchHangups(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.program.Hangups:
			r, err := d.reload()
			d.logReload(r, err)
		}
	}
}

func (d *Daemon) logReload(r api.Reload, err error) {
	if err != nil {
		d.log.Error("not reloaded, the node goes on as it was", "err", err)
		return
	}
	d.log.Info("reloaded", "applied", r.Applied, "restart", r.Restart, "secrets", r.Secrets)
}

// initial sets what a reload changes to what the node was started with.
func (d *Daemon) initial(cfg Config, secrets []secret.Secret) {
	d.given = cfg
	d.secrets.Store(&secrets)
	d.applyTrusted(cfg.TrustedSubnets)
}
