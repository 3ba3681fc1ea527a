package main

import (
	"bytes"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/spf13/pflag"

	"weft/internal/api"
	"weft/internal/hint"
	"weft/internal/secret"
)

// TestConfigurationIsReadAgain evaluates a command line twice, with a changed file the second time: the flags of the
// command line stay in effect.
func TestConfigurationIsReadAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "weft.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("WEFT_BRIDGE", "br7")
	write("mtu: 1300\nlog-level: debug\nname: from-the-file\n")
	o := &upOptions{}
	flags := pflag.NewFlagSet("up", pflag.ContinueOnError)
	o.addFlags(flags)
	args := []string{"--name", "a", "--range", "10.40.0.0/16,fd40::/64", "--no-discovery", "--config", file}
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	o.Peers = []string{"b", "c:7000"}
	line := recordCommandLine(flags, o.Peers)
	if err := o.evaluate(flags); err != nil {
		t.Fatal(err)
	}
	same := cmp.Options{cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})}
	again, err := line.Read()
	if diff := cmp.Diff(o.Config, again, same); diff != "" || err != nil {
		t.Errorf("read again, nothing changed: %v, %s", err, diff)
	}
	if o.Name != "a" || o.Bridge != "br7" || o.MTU != 1300 || o.LogLevel != slog.LevelDebug || !o.NoDiscovery || len(o.Ranges) != 2 {
		t.Errorf("the first time: %+v", o.Config)
	}

	write("secret-file: /some/where\nlog-level: warn\n")
	want := o.Config
	want.MTU, want.LogLevel, want.SecretFile = 0, slog.LevelWarn, "/some/where"
	again, err = line.Read()
	if diff := cmp.Diff(want, again, same); diff != "" || err != nil {
		t.Errorf("with a changed file: %v, %s", err, diff)
	}

	for _, bad := range []string{"log-level: loud\n", "no-such-key: 1\n", "mtu: tiny\n", "{"} {
		write(bad)
		_, err := line.Read()
		if p, ok := errors.AsType[*hint.Error](err); !ok || p.Kind != hint.Usage || p.Hint == "" {
			t.Errorf("%q: %v, want a refusal with a hint", bad, err)
		}
	}
}

func TestSecretGenerate(t *testing.T) {
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"secret", "generate"}, &out, &errs); code != hint.ExitDone || errs.Len() > 0 {
		t.Fatalf("exit code %d: %s", code, errs.String())
	}
	if secrets, err := secret.Parse(out.Bytes()); err != nil || len(secrets) != 1 {
		t.Errorf("%q: %v", out.String(), err)
	}
}

func TestReloadIsPrinted(t *testing.T) {
	for _, tt := range []struct {
		r    api.Reload
		want string
	}{
		{
			api.Reload{}, "nothing has changed\nsecrets in use: 0\n" +
				"The traffic is not encrypted: to turn encryption on, restart every node with --secret-file.\n",
		},
		{api.Reload{Encrypted: true}, "nothing has changed\nsecrets in use: 0\n"}, // identities
		{
			api.Reload{Applied: []string{"--secret-file", "--log-level"}, Restart: []string{"--mtu"}, Secrets: 2, Encrypted: true},
			"applied: --secret-file --log-level\ntakes effect at the next start: --mtu\nsecrets in use: 2\n",
		},
	} {
		var out bytes.Buffer
		writeReload(&out, tt.r)
		if diff := cmp.Diff(tt.want, out.String()); diff != "" {
			t.Error(diff)
		}
	}
}
