package deletions_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"weft/internal/leases/deletions"
	"weft/internal/leases/holder"
)

func TestQueue(t *testing.T) {
	dir := t.TempDir()
	q := deletions.Open(filepath.Join(dir, "weft.sock"))
	a, b := holder.ForContainer("weft", "a", "eth0"), holder.ForContainer("weft", "b", "eth0")
	if n, err := q.Drain(func(holder.Holder) error { t.Error("released"); return nil }); n != 0 || err != nil {
		t.Errorf("without a queue: %d, %v", n, err)
	}
	if err := q.Forget(a); err != nil {
		t.Errorf("Forget without a queue: %v", err)
	}
	for _, h := range []holder.Holder{a, b, a} {
		if err := q.Add(h); err != nil {
			t.Fatal(err)
		}
	}
	if err := q.Forget(b); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "deletions", "stray"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	failed := errors.New("disk full")
	if n, err := q.Drain(func(holder.Holder) error { return failed }); n != 0 || !errors.Is(err, failed) {
		t.Errorf("a failed release: %d, %v", n, err)
	}
	var released []holder.Holder
	n, err := q.Drain(func(h holder.Holder) error { released = append(released, h); return nil })
	if n != 1 || err != nil || len(released) != 1 || released[0] != a {
		t.Errorf("%d, %v: released %v, want %s once", n, err, released, a)
	}
	if n, err := q.Drain(func(holder.Holder) error { return nil }); n != 0 || err != nil {
		t.Errorf("an empty queue: %d, %v", n, err)
	}
}
