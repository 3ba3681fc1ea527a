package node

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/renameio/v2"

	"weft/internal/secret"
	"weft/internal/settings"
	"weft/mesh"
)

// counted is a Configuration that counts how often it is read.
type counted struct {
	cfg   settings.Config
	reads atomic.Int32
}

func (c *counted) Read() (settings.Config, error) { c.reads.Add(1); return c.cfg, nil }

// TestDigestOfFiles: a change of any of the files changes the digest, also if content moves from one to the next.
func TestDigestOfFiles(t *testing.T) {
	dir := t.TempDir()
	paths := []string{filepath.Join(dir, "secret"), filepath.Join(dir, "identity"), filepath.Join(dir, "ca.pub")}
	seen := map[[32]byte]bool{}
	for _, texts := range [][]string{{"a", "b", "c"}, {"a", "b", "d"}, {"a", "e", "c"}, {"ab", "", "c"}, {"", "ab", "c"}} {
		for i, path := range paths {
			if err := os.WriteFile(path, []byte(texts[i]), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		sum, ok := digestOf(paths)
		if !ok || seen[sum] {
			t.Errorf("%q: ok %v, or a digest of other files", texts, ok)
		}
		seen[sum] = true
	}
	if err := os.Remove(paths[1]); err != nil {
		t.Fatal(err)
	}
	if _, ok := digestOf(paths); ok {
		t.Error("a missing file has a digest")
	}
}

// TestSecretFileIsWatched: with --watch-secret the node reloads once when the content of the file changes, tries a bad file again
// after a while, and does nothing when the file is missing.
func TestSecretFileIsWatched(t *testing.T) {
	cfg := goodConfig()
	line := secret.Generate()
	cfg.SecretFile, cfg.WatchSecret = writeSecret(t, line), true
	write := func(text string) { // in one step, as the kubelet does it
		if err := renameio.WriteFile(cfg.SecretFile, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	creds, err := loadCredentials(&cfg)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		source := &counted{cfg: cfg}
		// Without a mesh: all files in this test have the same secrets, so that a reload changes none.
		process := Process{Level: &slog.LevelVar{}, Configuration: source}
		r := newReloader(cfg, process, creds, mesh.Identity{}, fixedAddr{}, nil, &recorder{}, slog.New(slog.DiscardHandler))
		go r.watchFiles(t.Context())
		after := func(wait time.Duration, want int32) {
			t.Helper()
			time.Sleep(wait)
			synctest.Wait()
			if n := source.reads.Load(); n != want {
				t.Errorf("%d reloads, want %d", n, want)
			}
		}
		after(time.Minute, 0)
		write(line + "\n\n")
		after(watchPeriod, 1)
		after(time.Minute, 1)
		write("short")
		after(watchPeriod, 2)
		after(watchRetry-time.Second, 2)
		after(2*watchPeriod, 3)
		write(line)
		after(watchPeriod, 4)
		if err := os.Remove(cfg.SecretFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		after(time.Minute, 4)
	})
}
