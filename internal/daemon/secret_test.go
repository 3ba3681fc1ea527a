package daemon

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/internal/secret"
	"weft/mesh"
)

// writeSecret writes a secret file of the given mode and returns its path.
func writeSecret(t *testing.T, text string, mode fs.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), os.Chmod(path, mode)); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSecretFilesThatAreRefused(t *testing.T) {
	line := secret.Generate()
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, path, want string }{
		{"missing", filepath.Join(t.TempDir(), "none"), "no such file"},
		{"folder", t.TempDir(), "not a regular file"},
		{"fifo", fifo, "not a regular file"},
		{"device", "/dev/null", "not a regular file"},
		{"readable by others", writeSecret(t, line, 0o604), "mode 0604"},
		{"writable by others", writeSecret(t, line, 0o602), "mode 0602"},
		{"writable by the group", writeSecret(t, line, 0o620), "mode 0620"},
		{"empty", writeSecret(t, "\n\n", 0o600), "no secret in it"},
		{"short", writeSecret(t, "hunter2", 0o600), "line 1: a passphrase of less than"},
		{"cut", writeSecret(t, line[:40], 0o600), "line 1: starts like"},
		{"not UTF-8", writeSecret(t, "\xff"+line, 0o600), "not UTF-8"},
		{"twice", writeSecret(t, line+"\n"+line, 0o600), "line 2: the same"},
		{"large", writeSecret(t, strings.Repeat("\n", maxSecretFile)+line, 0o600), "larger than 65536 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			secrets, err := (&Config{SecretFile: tt.path}).loadSecrets()
			r, ok := errors.AsType[*Refusal](err)
			if !ok || r.Subject != "--secret-file" || r.Hint == "" || len(secrets) != 0 {
				t.Fatalf("%d secrets, %v, want a refusal of --secret-file with a hint", len(secrets), err)
			}
			for _, want := range []string{tt.path, tt.want} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
			for _, secret := range []string{"hunter2", line[14:30]} {
				if strings.Contains(err.Error()+r.Hint, secret) {
					t.Errorf("%q repeats what is in the file", err)
				}
			}
		})
	}
}

func TestSecretFilesThatAreTaken(t *testing.T) {
	text := secret.Generate() + "\r\n\n" + secret.Generate() + "\n"
	link := filepath.Join(t.TempDir(), "link") // as Kubernetes makes them; a link's own mode is 0777
	if err := os.Symlink(writeSecret(t, text, 0o440), link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{link, writeSecret(t, text, 0o400), writeSecret(t, text, 0o640)} {
		if secrets, err := (&Config{SecretFile: path}).loadSecrets(); err != nil || len(secrets) != 2 {
			t.Errorf("%s: %d secrets, %v", path, len(secrets), err)
		}
	}
	if secrets, err := (&Config{}).loadSecrets(); err != nil || len(secrets) != 0 {
		t.Errorf("without a file: %d secrets, %v", len(secrets), err)
	}
}

func TestRotationIsFollowed(t *testing.T) {
	secrets, err := secret.Parse([]byte(secret.Generate() + "\n" + secret.Generate()))
	if err != nil {
		t.Fatal(err)
	}
	first, second := secrets[0].Fingerprint(), secrets[1].Fingerprint()
	member := func(name string, state mesh.State, accepts ...uint32) mesh.Member {
		return mesh.Member{Name: name, State: state, Accepts: accepts}
	}
	ready, old := member("ready", mesh.StateAlive, first), member("old", mesh.StateAlive, second)
	dead, self := member("dead", mesh.StateDead, second), mesh.Member{Name: "self", State: mesh.StateAlive, Self: true}
	for _, tt := range []struct {
		name      string
		secrets   []secret.Secret
		members   []mesh.Member
		behind    int
		droppable bool
	}{
		{"none", nil, []mesh.Member{self, old}, 0, false},
		{"one", secrets[:1], []mesh.Member{self, old}, 0, false},
		{"two, one behind", secrets, []mesh.Member{self, ready, old, dead}, 1, false},
		{"two, all there", secrets, []mesh.Member{self, ready, dead}, 0, true},
	} {
		behind, droppable := rotation(tt.secrets, tt.members)
		if len(behind) != tt.behind || droppable != tt.droppable {
			t.Errorf("%s: behind %v, droppable %v", tt.name, behind, droppable)
		}
	}
	if diff := cmp.Diff([]mesh.GossipKey{}, gossipKeys(nil)); diff != "" {
		t.Error(diff)
	}
}
