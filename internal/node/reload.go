package node

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"weft/internal/api"
	"weft/internal/hint"
	"weft/internal/secret"
	"weft/internal/settings"
	"weft/internal/statedir"
	"weft/mesh"
	"weft/router/session"
)

// setting is a flag and its value in a configuration.
type setting struct {
	flag  string
	value func(c *settings.Config) any
}

// restartSettings are the flags that take effect only at the next start.
var restartSettings = []setting{
	{"--name", func(c *settings.Config) any { return c.Name }},
	{"--state-dir", func(c *settings.Config) any { return c.StateDir }},
	{"--socket", func(c *settings.Config) any { return c.Socket }},
	{"--bridge", func(c *settings.Config) any { return c.Bridge }},
	{"--tap", func(c *settings.Config) any { return c.Tap }},
	{"--port", func(c *settings.Config) any { return c.Port }},
	{"--advertise", func(c *settings.Config) any { return c.Advertise }},
	{"--range", func(c *settings.Config) any { return c.Ranges }},
	{"--init-peers", func(c *settings.Config) any { return c.InitPeers }},
	{"--secret-file", func(c *settings.Config) any { return c.SecretFile != "" }},
	{"--watch-secret", func(c *settings.Config) any { return c.WatchSecret }},
	{"--plain", func(c *settings.Config) any { return c.Plain }},
	{"--cipher", func(c *settings.Config) any { return c.Cipher }},
	{"--datapath", func(c *settings.Config) any { return c.Datapath }},
	{"--offload", func(c *settings.Config) any { return c.Offload }},
	{"--mtu", func(c *settings.Config) any { return c.MTU }},
	{"--queues", func(c *settings.Config) any { return c.Queues }},
	{"--no-discovery", func(c *settings.Config) any { return c.NoDiscovery }},
	{"--no-masquerade", func(c *settings.Config) any { return c.NoMasquerade }},
	{"--allow-overlap", func(c *settings.Config) any { return c.AllowOverlap }},
	{"--http-addr", func(c *settings.Config) any { return c.HTTPAddr }},
	{"--lease-grace", func(c *settings.Config) any { return c.LeaseGrace }},
	{"--guard", func(c *settings.Config) any { return c.Guard }},
	{"--no-arp-proxy", func(c *settings.Config) any { return c.NoARPProxy }},
	{"--source-check", func(c *settings.Config) any { return c.SourceCheck }},
	{"--no-dns", func(c *settings.Config) any { return c.NoDNS }},
	{"--take-over", func(c *settings.Config) any { return c.TakeOver }},
	{"--log-format", func(c *settings.Config) any { return c.LogFormat }},
}

// allSettings are all flags of a node. The value of --secret-file is whether there is one.
func allSettings() []setting {
	return append([]setting{
		{"--trusted-subnets", func(c *settings.Config) any { return c.TrustedSubnets }},
		{"--log-level", func(c *settings.Config) any { return c.LogLevel }},
		{"PEER", func(c *settings.Config) any { return c.Peers }},
	}, restartSettings...)
}

// settingText writes a value as on the command line: an address that is not set is empty.
func settingText(v any) string {
	if ip, ok := v.(netip.Addr); ok && !ip.IsValid() {
		return ""
	}
	return fmt.Sprint(v)
}

// security is what a reload changes of the datapath; see datapath.Datapath.
type security interface {
	SetSecrets([]session.Secret)
	SetTrusted([]netip.Prefix)
}

// reloader reads the configuration again while the node runs. It owns the secrets in use.
type reloader struct {
	// constant
	process  Process
	mesh     *mesh.Mesh
	datapath security
	log      *slog.Logger

	known   [sha256.Size]byte               // owned by watchSecretFile: digest of the file that was read last
	secrets atomic.Pointer[[]secret.Secret] // in use; never nil

	mu    sync.Mutex      // serializes Reload
	given settings.Config // guarded by mu: the configuration of the start, with what was reloaded since
}

func newReloader(
	cfg settings.Config, process Process, secrets []secret.Secret, m *mesh.Mesh, d security, log *slog.Logger,
) *reloader {
	r := &reloader{process: process, mesh: m, datapath: d, log: log, given: cfg}
	r.secrets.Store(&secrets)
	if cfg.WatchSecret {
		r.known, _ = digestOf(cfg.SecretFile)
	}
	return r
}

// inUse returns the secrets in use; none where the node has none. The slice must not be changed.
func (r *reloader) inUse() []secret.Secret { return *r.secrets.Load() }

// Reload implements apiserver.Cluster: it reads configuration and secret file again and applies what can change while the node
// runs. If they are invalid, nothing changes.
func (r *reloader) Reload() (api.Reload, error) {
	done, err := r.reload()
	if err != nil {
		r.log.Error("cannot reload: the configuration stays as it was", "err", err)
		if _, ok := errors.AsType[*hint.Error](err); !ok {
			err = hint.New(hint.Refused, "", "%w", err)
		}
		return done, err
	}
	r.log.Info("reloaded", "applied", done.Applied, "restart", done.Restart, "secrets", done.Secrets)
	return done, nil
}

func (r *reloader) reload() (api.Reload, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	cfg, err := r.process.Configuration.Read()
	if err != nil {
		return api.Reload{}, err
	}
	if err := cfg.Validate(); err != nil {
		return api.Reload{}, err
	}
	secrets, err := cfg.LoadSecrets()
	if err != nil {
		return api.Reload{}, err
	}
	if r.given.Protected() && !cfg.Protected() && !cfg.Plain { // the next start would refuse it as well
		return api.Reload{}, statedir.RefusePlain(r.given.ProtectedBy())
	}
	done := api.Reload{Applied: []string{}, Restart: []string{}}
	old := r.inUse()
	if len(old) > 0 && len(secrets) > 0 && !slices.Equal(gossipKeys(old), gossipKeys(secrets)) {
		if err := r.applySecrets(secrets); err != nil { // first: nothing after it can fail
			return api.Reload{}, err
		}
		done.Applied = append(done.Applied, "--secret-file")
	}
	if !slices.Equal(r.given.TrustedSubnets, cfg.TrustedSubnets) {
		r.datapath.SetTrusted(cfg.TrustedSubnets)
		done.Applied = append(done.Applied, "--trusted-subnets")
	}
	if r.given.LogLevel != cfg.LogLevel {
		r.process.Level.Set(cfg.LogLevel)
		done.Applied = append(done.Applied, "--log-level")
	}
	for _, s := range restartSettings {
		if fmt.Sprint(s.value(&r.given)) != fmt.Sprint(s.value(&cfg)) {
			done.Restart = append(done.Restart, s.flag)
		}
	}
	r.given.TrustedSubnets, r.given.LogLevel = cfg.TrustedSubnets, cfg.LogLevel
	done.Secrets = len(r.inUse())
	return done, nil
}

// applySecrets replaces the secrets in use by one or more others; the node was started with some.
func (r *reloader) applySecrets(list []secret.Secret) error {
	before := r.secrets.Swap(&list)
	r.datapath.SetSecrets(sessionSecrets(list)) // before the other nodes learn that this node accepts them
	if err := r.mesh.SetKeys(gossipKeys(list)); err != nil {
		r.secrets.Store(before)
		r.datapath.SetSecrets(sessionSecrets(*before))
		return err
	}
	return nil
}

// watchSignal reloads at each signal until ctx ends.
func (r *reloader) watchSignal(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.process.ReloadSignal:
			_, _ = r.Reload() // which logs the error
		}
	}
}

// gossipKeys returns secrets as the mesh takes them.
func gossipKeys(list []secret.Secret) []mesh.GossipKey {
	keys := make([]mesh.GossipKey, 0, len(list))
	for _, s := range list {
		keys = append(keys, mesh.GossipKey{Key: s.GossipKey(), Fingerprint: s.Fingerprint()})
	}
	return keys
}

// sessionSecrets returns secrets as the router takes them.
func sessionSecrets(list []secret.Secret) []session.Secret {
	secrets := make([]session.Secret, 0, len(list))
	for _, s := range list {
		secrets = append(secrets, session.Secret{Key: s.SessionKey(), Fingerprint: s.Fingerprint()})
	}
	return secrets
}

// rotation returns which live nodes cannot open the first of several secrets yet, by name, and whether the others may be dropped.
func rotation(secrets []secret.Secret, members []mesh.Member) (behind []string, droppable bool) {
	if len(secrets) < 2 {
		return nil, false
	}
	first := secrets[0].Fingerprint()
	for _, m := range members {
		if isLivePeer(m) && !slices.Contains(m.Accepts, first) {
			behind = append(behind, fmt.Sprintf("%s (%s)", m.Name, m.Addr))
		}
	}
	return behind, len(behind) == 0
}
