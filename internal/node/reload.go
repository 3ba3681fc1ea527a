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
	"time"

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

// Flags of credentials. A node that has either can get or lose the other while it runs.
const (
	secretFlag     = "--secret-file"
	identityFlag   = "--identity"
	identityCAFlag = "--identity-ca"
)

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
	{secretFlag, func(c *settings.Config) any { return c.SecretFile != "" }},
	{"--watch-secret", func(c *settings.Config) any { return c.WatchSecret }},
	{"--plain", func(c *settings.Config) any { return c.Plain }},
	{identityFlag, func(c *settings.Config) any { return c.IdentityFile != "" }},
	{identityCAFlag, func(c *settings.Config) any { return c.IdentityCAFile != "" }},
	{"--cipher", func(c *settings.Config) any { return c.Cipher }},
	{"--aes", func(c *settings.Config) any { return c.AES }},
	{"--datapath", func(c *settings.Config) any { return c.Datapath }},
	{"--carriers", func(c *settings.Config) any { return c.Carriers }},
	{"--direct-routing", func(c *settings.Config) any { return c.DirectRouting }},
	{"--wireguard-device", func(c *settings.Config) any { return c.WireGuardDevice }},
	{"--offload", func(c *settings.Config) any { return c.Offload }},
	{"--dscp", func(c *settings.Config) any { return c.DSCP }},
	{"--source-ports", func(c *settings.Config) any { return c.SourcePorts }},
	{"--busy-poll", func(c *settings.Config) any { return c.BusyPoll }},
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
	{"--dns-domain", func(c *settings.Config) any { return c.Domain() }},
	{"--take-over", func(c *settings.Config) any { return c.TakeOver }},
	{"--log-format", func(c *settings.Config) any { return c.LogFormat }},
}

// allSettings are all flags of a node. The values of --secret-file, --identity and --identity-ca are whether there is one.
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
	identity mesh.Identity
	at       interface{ addr() netip.Addr } // of this node in the underlay
	mesh     *mesh.Mesh
	datapath security
	log      *slog.Logger

	known       [sha256.Size]byte           // owned by watchFiles: digest of the files that were read last
	credentials atomic.Pointer[credentials] // in use; never nil

	mu    sync.Mutex      // serializes Reload
	given settings.Config // guarded by mu: the configuration of the start, with what was reloaded since
}

func newReloader(
	cfg settings.Config, process Process, creds credentials, id mesh.Identity, at interface{ addr() netip.Addr }, m *mesh.Mesh,
	d security, log *slog.Logger,
) *reloader {
	r := &reloader{process: process, identity: id, at: at, mesh: m, datapath: d, log: log, given: cfg}
	r.credentials.Store(&creds)
	if cfg.WatchSecret {
		r.known, _ = digestOf(cfg.WatchedFiles())
	}
	return r
}

// inUse returns the credentials in use. They must not be changed.
func (r *reloader) inUse() credentials { return *r.credentials.Load() }

// Reload implements apiserver.Cluster: it reads configuration, secret file and identity file again and applies what can change
// while the node runs. If they are invalid, nothing changes.
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
	creds, err := loadCredentials(&cfg)
	if err != nil {
		return api.Reload{}, err
	}
	if r.given.Protected() && !cfg.Protected() && !cfg.Plain { // the next start would refuse it as well
		return api.Reload{}, statedir.RefusePlain(r.given.ProtectedBy())
	}
	done := api.Reload{Applied: []string{}, Restart: []string{}}
	if old := r.inUse(); old.sealed() && creds.sealed() {
		newSecrets := !slices.Equal(gossipKeys(old.secrets), gossipKeys(creds.secrets))
		newIdentity := !sameSigned(old.signed, creds.signed)
		if newSecrets || newIdentity {
			if err := r.applyCredentials(creds); err != nil { // first: nothing after it can fail
				return api.Reload{}, err
			}
		}
		if newSecrets {
			done.Applied = append(done.Applied, secretFlag)
		}
		if newIdentity {
			done.Applied = append(done.Applied, identityFlag)
		}
	}
	if !slices.Equal(r.given.TrustedSubnets, cfg.TrustedSubnets) {
		r.datapath.SetTrusted(cfg.TrustedSubnets)
		done.Applied = append(done.Applied, "--trusted-subnets")
	}
	if r.given.LogLevel != cfg.LogLevel {
		r.process.Level.Set(cfg.LogLevel)
		done.Applied = append(done.Applied, "--log-level")
	}
	stillSealed := r.inUse().sealed() && creds.sealed()
	for _, s := range restartSettings {
		if stillSealed && slices.Contains([]string{secretFlag, identityFlag, identityCAFlag}, s.flag) {
			continue
		}
		if fmt.Sprint(s.value(&r.given)) != fmt.Sprint(s.value(&cfg)) {
			done.Restart = append(done.Restart, s.flag)
		}
	}
	r.given.TrustedSubnets, r.given.LogLevel = cfg.TrustedSubnets, cfg.LogLevel
	done.Secrets, done.Encrypted = len(r.inUse().secrets), r.inUse().sealed()
	return done, nil
}

// applyCredentials replaces the credentials in use by others; both seal.
func (r *reloader) applyCredentials(creds credentials) error {
	if err := creds.check(r.identity, r.given.Name, r.at.addr(), time.Now()); err != nil {
		return err
	}
	before := r.credentials.Swap(&creds)
	r.datapath.SetSecrets(creds.sessionSecrets()) // before the other nodes learn that this node accepts them
	if err := r.mesh.SetCredentials(gossipKeys(creds.secrets), creds.signed); err != nil {
		r.credentials.Store(before)
		r.datapath.SetSecrets(before.sessionSecrets())
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

// rotationState is how far the nodes are on their way from one secret to the next.
type rotationState struct {
	behind    []string // names of live nodes that cannot open the first of several secrets yet
	reversed  []string // names of live nodes that have it after another one of this node
	droppable bool     // all others may be dropped
}

// rotation returns how far the live nodes are with the secrets of this node.
func rotation(secrets []secret.Secret, members []mesh.Member) (r rotationState) {
	if len(secrets) < 2 {
		return r
	}
	own := make([]uint32, len(secrets))
	for i, s := range secrets {
		own[i] = s.Fingerprint()
	}
	for _, m := range members {
		if !isLivePeer(m) {
			continue
		}
		common := slices.DeleteFunc(slices.Clone(m.Accepts), func(f uint32) bool { return !slices.Contains(own, f) })
		name := fmt.Sprintf("%s (%s)", m.Name, m.Addr)
		switch {
		case !slices.Contains(common, own[0]):
			r.behind = append(r.behind, name)
		case common[0] != own[0]: // beside keys of CAs, which are first
			r.reversed = append(r.reversed, name)
		}
	}
	r.droppable = len(r.behind)+len(r.reversed) == 0
	return r
}
