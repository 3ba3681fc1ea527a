package store_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"weft/internal/peer"
	"weft/ipam/store"
	"weft/ipam/store/storetest"
)

func TestBolt(t *testing.T) {
	storetest.TestStore(t, func(t *testing.T) func() store.Store {
		dir := t.TempDir()
		return func() store.Store {
			s, err := store.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
	})
}

// written returns the path of a closed store that is not empty.
func written(t *testing.T) (path string) {
	t.Helper()
	dir := t.TempDir()
	s, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Update(func(tx store.Tx) error { return tx.SetSelf(peer.ID{1}) }); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, store.FileName)
}

func TestOpenModeAndLock(t *testing.T) {
	path := written(t)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	s, err := store.Open(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := store.Open(filepath.Dir(path)); !errors.Is(err, store.ErrInUse) || !strings.Contains(err.Error(), path) {
		t.Errorf("opened twice: %v", err)
	}
}

func TestOpenLeavesBrokenFilesAlone(t *testing.T) {
	page := os.Getpagesize()
	for name, damage := range map[string]func(b []byte) []byte{
		"text":          func([]byte) []byte { return []byte("not a database") },
		"zeros":         func(b []byte) []byte { return make([]byte, len(b)) },
		"cut to 1 page": func(b []byte) []byte { return b[:page] },
		"cut to 3":      func(b []byte) []byte { return b[:3*page] },
		"no metas":      func(b []byte) []byte { return append(make([]byte, 2*page), b[2*page:]...) },
		"no pages":      func(b []byte) []byte { return append(b[:2*page], make([]byte, len(b)-2*page)...) },
		"ones":          func(b []byte) []byte { return append(b[:2*page], bytes.Repeat([]byte{0xff}, len(b)-2*page)...) },
	} {
		t.Run(name, func(t *testing.T) {
			path := written(t)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			broken := damage(b)
			if err := os.WriteFile(path, broken, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err = store.Open(filepath.Dir(path))
			if !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "move it away") {
				t.Errorf("Open: %v", err)
			}
			after, err := os.ReadFile(path)
			if err != nil || !bytes.Equal(after, broken) {
				t.Errorf("the file was written to (%v)", err)
			}
			// The remedy in the error works.
			if err := os.Rename(path, path+".away"); err != nil {
				t.Fatal(err)
			}
			s, err := store.Open(filepath.Dir(path))
			if err != nil {
				t.Fatal(err)
			}
			s.Close()
		})
	}
}

func TestOpenRefusesAFileOfALaterWeft(t *testing.T) {
	path := written(t)
	edit(t, path, "meta", "version", "2")
	if _, err := store.Open(filepath.Dir(path)); !errors.Is(err, store.ErrVersion) || !strings.Contains(err.Error(), path) {
		t.Errorf("Open: %v", err)
	}
}

func TestOpenRefusesMalformedRecords(t *testing.T) {
	for _, tt := range [][3]string{
		{"meta", "self", "no ID"},
		{"rings", "10.0.0.0", "x"},
		{"votes", "x", "x"},
		{"leases", "10.0.0.1", "{"},
		{"leases", "x", "{}"},
	} {
		path := written(t)
		edit(t, path, tt[0], tt[1], tt[2])
		if _, err := store.Open(filepath.Dir(path)); !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("%v: %v", tt, err)
		}
	}
}

func edit(t *testing.T, path, bucket, key, value string) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.Update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte(bucket)).Put([]byte(key), []byte(value)) })
	if err != nil {
		t.Fatal(err)
	}
}

func TestOpenNamesThePathThatItCannotWrite(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	if _, err := store.Open(missing); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), missing) {
		t.Errorf("no directory: %v", err)
	}
	path := written(t)
	if err := os.Chmod(path, 0o400); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		return // root may write to any file
	}
	if _, err := store.Open(filepath.Dir(path)); !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), path) {
		t.Errorf("read-only: %v", err)
	}
}
