package secret

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"weft/internal/hint"
	"weft/internal/nettest/labtest"
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

func TestRefusedFiles(t *testing.T) {
	line := Generate()
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, path, want string }{
		{"missing", filepath.Join(t.TempDir(), "none"), "no such file"},
		{"directory", t.TempDir(), "not a regular file"},
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
		{"large", writeSecret(t, strings.Repeat("\n", maxFile)+line, 0o600), "larger than 65536 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			secrets, err := ReadFile(tt.path)
			r, ok := errors.AsType[*hint.Error](err)
			if !ok || r.Subject != "--secret-file" || r.Hint == "" || len(secrets) != 0 {
				t.Fatalf("%d secrets, %v, want a refusal of --secret-file with a hint", len(secrets), err)
			}
			for _, want := range []string{tt.path, tt.want} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not contain %q", err, want)
				}
			}
			for _, text := range []string{"hunter2", line[14:30]} {
				if strings.Contains(err.Error()+r.Hint, text) {
					t.Errorf("%q repeats the contents of the file", err)
				}
			}
		})
	}
}

// TestOwner: a file that another user owns is refused whatever its mode, and accepted by a process of that user.
func TestOwner(t *testing.T) {
	labtest.RequireRoot(t)
	path := writeSecret(t, Generate(), 0o600)
	if err := os.Chown(path, 1000, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadFile(path); err == nil || !strings.Contains(err.Error(), "owns it") {
		t.Errorf("a file of another user: %v", err)
	}
	if err := os.Chown(path, 0, 1000); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadFile(path); err != nil {
		t.Errorf("a file of root: %v", err)
	}
}

func TestAcceptedFiles(t *testing.T) {
	text := Generate() + "\r\n\n" + Generate() + "\n"
	link := filepath.Join(t.TempDir(), "link") // as Kubernetes makes them; the mode of a link is 0777
	if err := os.Symlink(writeSecret(t, text, 0o440), link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{link, writeSecret(t, text, 0o400), writeSecret(t, text, 0o640)} {
		if secrets, err := ReadFile(path); err != nil || len(secrets) != 2 {
			t.Errorf("%s: %d secrets, %v", path, len(secrets), err)
		}
	}
}
