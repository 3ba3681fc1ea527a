package privatefile

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"weft/internal/nettest/labtest"
)

// write creates the file at path by Create, with the content "new".
func write(t *testing.T, path string) error {
	t.Helper()
	f, err := Create(path)
	if err != nil {
		return err
	}
	if _, err := f.WriteString("new"); err != nil {
		t.Error(err)
	}
	return f.Close()
}

func content(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestReplacesAnOpenFile: neither the mode of an earlier file is kept, nor does a process that has it open read the new content.
func TestReplacesAnOpenFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	if err := errors.Join(os.WriteFile(path, []byte("old"), 0o600), os.Chmod(path, 0o666)); err != nil {
		t.Fatal(err)
	}
	reader, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if err := write(t, path); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 || content(t, path) != "new" {
		t.Errorf("%v, %v, %q", info.Mode(), err, content(t, path))
	}
	old := make([]byte, 8)
	if n, _ := reader.Read(old); string(old[:n]) != "old" {
		t.Errorf("a process with the earlier file open reads %q", old[:n])
	}
}

// TestFollowsNoLink: the target of a link is neither created nor written.
func TestFollowsNoLink(t *testing.T) {
	dir := t.TempDir()
	target, missing := filepath.Join(dir, "target"), filepath.Join(dir, "missing")
	if err := os.WriteFile(target, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	for i, to := range []string{target, missing} {
		link := filepath.Join(dir, "link"+string(rune('a'+i)))
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
		if err := write(t, link); !errors.Is(err, ErrForeign) {
			t.Errorf("a link to %s: %v", to, err)
		}
	}
	if _, err := os.Stat(missing); err == nil || content(t, target) != "old" {
		t.Errorf("the target of a link was written: %v", err)
	}
}

// TestKeepsFilesOfOthers: a file of another user is neither written nor removed.
func TestKeepsFilesOfOthers(t *testing.T) {
	labtest.RequireRoot(t)
	path := filepath.Join(t.TempDir(), "x")
	if err := errors.Join(os.WriteFile(path, []byte("old"), 0o600), os.Chown(path, 1000, 1000)); err != nil {
		t.Fatal(err)
	}
	if err := write(t, path); !errors.Is(err, ErrForeign) || content(t, path) != "old" {
		t.Errorf("%v, %q", err, content(t, path))
	}
}

func TestOpensDevices(t *testing.T) {
	if err := write(t, "/dev/null"); err != nil {
		t.Error(err)
	}
}
