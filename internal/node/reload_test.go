package node

import (
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/internal/api"
	"weft/internal/hint"
	"weft/internal/secret"
	"weft/internal/settings"
	"weft/mesh"
	"weft/mesh/addressbook"
	"weft/router/session"
)

// source is a Configuration in memory.
type source struct {
	cfg settings.Config
	err error
}

func (s *source) Read() (settings.Config, error) { return s.cfg, s.err }

// recorder is what a reload changes of the datapath.
type recorder struct {
	secrets []session.Secret
	trusted []netip.Prefix
}

func (r *recorder) SetSecrets(list []session.Secret) { r.secrets = list }
func (r *recorder) SetTrusted(list []netip.Prefix)   { r.trusted = list }

// fixedAddr is the address of a node that does not move.
type fixedAddr struct{}

func (fixedAddr) addr() netip.Addr { return netip.MustParseAddr("127.0.0.1") }

// goodConfig returns a Config that Validate accepts.
func goodConfig() settings.Config {
	return settings.Config{
		Name: "a", StateDir: settings.DefaultStateDir, Socket: settings.DefaultSocket, Bridge: settings.DefaultBridge, Tap: settings.DefaultTap,
		Port: settings.DefaultPort, Ranges: []netip.Prefix{netip.MustParsePrefix(settings.DefaultRange)}, InitPeers: settings.BootstrapFromPeers,
		Cipher: settings.CipherAuto, Datapath: settings.DatapathAuto, Offload: settings.OffloadAuto, HTTPAddr: settings.DefaultHTTPAddr,
	}
}

func writeSecret(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// reloadable returns a reloader, the datapath that it changes, and the configuration that it will read.
func reloadable(t *testing.T, cfg settings.Config) (*reloader, *recorder, *source) {
	t.Helper()
	creds, err := loadCredentials(&cfg)
	if err != nil {
		t.Fatal(err)
	}
	identity, err := mesh.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	loopback := netip.MustParseAddrPort("127.0.0.1:0")
	transport, err := mesh.Listen(loopback, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = transport.Shutdown() })
	targets, err := addressbook.Load(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	m, err := mesh.New(mesh.Config{
		Identity: identity, Name: cfg.Name, Transport: transport, Targets: targets, Advertise: loopback,
		Keys: gossipKeys(creds.secrets), Logger: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	next, datapath := &source{cfg: cfg}, &recorder{}
	return newReloader(cfg, Process{Level: &slog.LevelVar{}, Configuration: next}, creds, identity, fixedAddr{}, m, datapath, log),
		datapath, next
}

func TestReloadAppliesWhatCanChange(t *testing.T) {
	cfg := goodConfig()
	cfg.SecretFile = writeSecret(t, secret.Generate())
	r, datapath, next := reloadable(t, cfg)
	reload := func(want api.Reload) {
		t.Helper()
		got, err := r.Reload()
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%v: %s", err, diff)
		}
	}
	reload(api.Reload{Applied: []string{}, Restart: []string{}, Secrets: 1, Encrypted: true})

	next.cfg.LogLevel, next.cfg.TrustedSubnets = slog.LevelDebug, []netip.Prefix{netip.MustParsePrefix("192.168.0.0/16")}
	next.cfg.MTU, next.cfg.Name, next.cfg.DNSDomain = 1300, "b", settings.DefaultDNSDomain
	next.cfg.SecretFile = writeSecret(t, secret.Generate()+"\n"+secret.Generate())
	reload(api.Reload{
		Applied: []string{"--secret-file", "--trusted-subnets", "--log-level"}, Restart: []string{"--name", "--mtu"}, Secrets: 2, Encrypted: true,
	})
	if r.process.Level.Level() != slog.LevelDebug || len(datapath.trusted) != 1 || len(datapath.secrets) != 2 {
		t.Errorf("level %v, trusted %v, %d secrets", r.process.Level, datapath.trusted, len(datapath.secrets))
	}
	reload(api.Reload{Applied: []string{}, Restart: []string{"--name", "--mtu"}, Secrets: 2, Encrypted: true})

	next.cfg.SecretFile, next.cfg.Plain, next.cfg.DNSDomain = "", true, "pods.example.org"
	reload(api.Reload{
		Applied: []string{}, Restart: []string{"--name", "--secret-file", "--plain", "--mtu", "--dns-domain"}, Secrets: 2, Encrypted: true,
	})
}

func TestFirstSecretNeedsARestart(t *testing.T) {
	r, _, next := reloadable(t, goodConfig())
	next.cfg.SecretFile = writeSecret(t, secret.Generate())
	got, err := r.Reload()
	if diff := cmp.Diff(api.Reload{Applied: []string{}, Restart: []string{"--secret-file"}}, got); diff != "" || err != nil {
		t.Errorf("%v: %s", err, diff)
	}
}

// TestBadReloadChangesNothing makes the configuration invalid in several ways, each beside a change that would be applied.
func TestBadReloadChangesNothing(t *testing.T) {
	good := goodConfig()
	good.SecretFile = writeSecret(t, secret.Generate())
	for _, tt := range []struct {
		name   string
		change func(s *source)
	}{
		{"secret", func(s *source) { s.cfg.SecretFile = writeSecret(t, "short") }},
		{"no secret", func(s *source) { s.cfg.SecretFile = filepath.Join(t.TempDir(), "none") }},
		{"no secret file", func(s *source) { s.cfg.SecretFile = "" }},
		{"secret and plain", func(s *source) { s.cfg.Plain = true }},
		{"value", func(s *source) { s.cfg.MTU = 1 }},
		{"config file", func(s *source) { s.err = hint.Refuse("--config", "Fix it.", "a bad file") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, datapath, next := reloadable(t, good)
			before := gossipKeys(r.inUse().secrets)
			next.cfg.LogLevel, next.cfg.SecretFile = slog.LevelDebug, writeSecret(t, secret.Generate())
			tt.change(next)
			_, err := r.Reload()
			if e, ok := errors.AsType[*hint.Error](err); !ok || e.Kind != hint.Usage || e.Hint == "" {
				t.Errorf("got %v, want a refusal with a hint", err)
			}
			diff := cmp.Diff(before, gossipKeys(r.inUse().secrets))
			if diff != "" || r.process.Level.Level() != slog.LevelInfo || datapath.secrets != nil {
				t.Errorf("level %v, secrets %s", r.process.Level, diff)
			}
		})
	}
}

func TestSignalReloads(t *testing.T) {
	cfg := goodConfig()
	cfg.SecretFile = writeSecret(t, secret.Generate())
	r, _, next := reloadable(t, cfg)
	next.cfg.LogLevel = slog.LevelWarn
	signals := make(chan os.Signal)
	r.process.ReloadSignal = signals
	go r.watchSignal(t.Context())
	signals <- os.Interrupt
	signals <- os.Interrupt // received once the first reload is complete
	if r.process.Level.Level() != slog.LevelWarn {
		t.Errorf("level %v after a signal", r.process.Level)
	}
}

func TestSettingText(t *testing.T) {
	for want, v := range map[string]any{"": netip.Addr{}, "192.0.2.1": netip.MustParseAddr("192.0.2.1"), "[]": []string{}, "true": true} {
		if got := settingText(v); got != want {
			t.Errorf("settingText(%v) = %q, want %q", v, got, want)
		}
	}
}
