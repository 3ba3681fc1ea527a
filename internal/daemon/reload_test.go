package daemon

import (
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/internal/api"
	"weft/internal/secret"
	"weft/mesh"
)

// reloadable returns a daemon that can reload, and does nothing else, and the configuration that it will find.
func reloadable(t *testing.T, cfg Config) (*Daemon, *Config) {
	t.Helper()
	secrets, err := cfg.loadSecrets()
	if err != nil {
		t.Fatal(err)
	}
	next := cfg
	d := &Daemon{cfg: cfg, log: slog.New(slog.DiscardHandler)}
	d.program = Program{Level: &slog.LevelVar{}, Reread: func() (Config, error) { return next, nil }}
	d.initial(cfg, secrets)
	identity, err := mesh.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	loopback := netip.MustParseAddrPort("127.0.0.1:0")
	transport, err := mesh.Listen(loopback, d.log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = transport.Shutdown() })
	d.mesh, err = mesh.New(mesh.Config{Identity: identity, Transport: transport, Advertise: loopback, Keys: gossipKeys(secrets)})
	if err != nil {
		t.Fatal(err)
	}
	return d, &next
}

func TestReloadAppliesWhatItCan(t *testing.T) {
	cfg := goodConfig()
	cfg.SecretFile = writeSecret(t, secret.Generate(), 0o600)
	d, next := reloadable(t, cfg)
	reload := func(want api.Reload) {
		t.Helper()
		got, err := d.reload()
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%v: %s", err, diff)
		}
	}
	reload(api.Reload{Applied: []string{}, Restart: []string{}, Secrets: 1})

	next.LogLevel, next.TrustedSubnets = slog.LevelDebug, []netip.Prefix{netip.MustParsePrefix("192.168.0.0/16")}
	next.MTU, next.Name = 1300, "b"
	next.SecretFile = writeSecret(t, secret.Generate()+"\n"+secret.Generate(), 0o600)
	reload(api.Reload{
		Applied: []string{"--secret-file", "--trusted-subnets", "--log-level"}, Restart: []string{"--name", "--mtu"}, Secrets: 2,
	})
	if d.program.Level.Level() != slog.LevelDebug || len(*d.trusted.Load()) != 1 {
		t.Errorf("level %v, trusted %v", d.program.Level, *d.trusted.Load())
	}
	reload(api.Reload{Applied: []string{}, Restart: []string{"--name", "--mtu"}, Secrets: 2})

	next.SecretFile = ""
	reload(api.Reload{Applied: []string{}, Restart: []string{"--name", "--secret-file", "--mtu"}, Secrets: 2})
}

func TestReloadDoesNotTakeAFirstSecret(t *testing.T) {
	d, next := reloadable(t, goodConfig())
	next.SecretFile = writeSecret(t, secret.Generate(), 0o600)
	got, err := d.reload()
	if diff := cmp.Diff(api.Reload{Applied: []string{}, Restart: []string{"--secret-file"}}, got); diff != "" || err != nil {
		t.Errorf("%v: %s", err, diff)
	}
}

// TestBadReloadChangesNothing breaks what is read again in several ways, each beside a change that would be applied.
func TestBadReloadChangesNothing(t *testing.T) {
	good := goodConfig()
	good.SecretFile = writeSecret(t, secret.Generate(), 0o600)
	for _, tt := range []struct {
		name   string
		change func(c *Config)
		err    error // of Reread
	}{
		{"secret", func(c *Config) { c.SecretFile = writeSecret(t, "short", 0o600) }, nil},
		{"no secret", func(c *Config) { c.SecretFile = filepath.Join(t.TempDir(), "none") }, nil},
		{"value", func(c *Config) { c.MTU = 1 }, nil},
		{"config file", func(*Config) {}, &api.Problem{Kind: api.KindRefused, Detail: "a bad file", Hint: "Mend it."}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, next := reloadable(t, good)
			before := gossipKeys(d.secretList())
			next.LogLevel, next.SecretFile = slog.LevelDebug, writeSecret(t, secret.Generate(), 0o600)
			tt.change(next)
			if tt.err != nil {
				d.program.Reread = func() (Config, error) { return *next, tt.err }
			}
			_, err := serveTest(t, d.apiHandler()).Reload(t.Context())
			p, ok := errors.AsType[*api.Problem](err)
			if !ok || p.Kind != api.KindRefused || p.Detail == "" || p.Hint == "" {
				t.Errorf("got %v, want a refusal with a hint", err)
			}
			if diff := cmp.Diff(before, gossipKeys(d.secretList())); diff != "" || d.program.Level.Level() != slog.LevelInfo {
				t.Errorf("level %v, secrets %s", d.program.Level, diff)
			}
		})
	}
}

func TestHangupReloads(t *testing.T) {
	cfg := goodConfig()
	cfg.SecretFile = writeSecret(t, secret.Generate(), 0o600)
	d, next := reloadable(t, cfg)
	next.LogLevel = slog.LevelWarn
	hangups := make(chan os.Signal)
	d.program.Hangups = hangups
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.watchHangups(t.Context())
	}()
	hangups <- os.Interrupt
	hangups <- os.Interrupt // taken once the first one is through
	if d.program.Level.Level() != slog.LevelWarn {
		t.Errorf("level %v after a hang-up", d.program.Level)
	}
}
