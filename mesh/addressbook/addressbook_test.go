package addressbook

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"weft/internal/peer"
)

// slowDisk blocks every write until release is called.
type slowDisk struct {
	writing chan struct{} // receives a value when a write has begun
	proceed chan struct{} // closed by release
	release func()
}

func newSlowDisk(t *testing.T, targets *Book) *slowDisk {
	d := &slowDisk{writing: make(chan struct{}, 1), proceed: make(chan struct{})}
	d.release = sync.OnceFunc(func() { close(d.proceed) })
	t.Cleanup(d.release)
	write := targets.write
	targets.write = func(path string, data []byte) error {
		d.writing <- struct{}{}
		<-d.proceed
		return write(path, data)
	}
	return d
}

// TestSlowDiskDoesNotBlockReaders: while a write hangs, the readers return, with the state before that write. The
// allocator calls Mesh.Known, which reads the book, with its own lock held.
func TestSlowDiskDoesNotBlockReaders(t *testing.T) {
	targets, err := Load(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	before := map[peer.ID]string{{1}: "10.0.0.1:6783"}
	if err := targets.RecordSeen(places(before), nil); err != nil {
		t.Fatal(err)
	}
	disk := newSlowDisk(t, targets)
	saved := make(chan error, 1)
	go func() { saved <- targets.RecordSeen(places(map[peer.ID]string{{2}: "10.0.0.2:6783"}), nil) }()
	<-disk.writing

	read := make(chan struct{})
	go func() {
		defer close(read)
		if !targets.HasSeen(peer.ID{1}) || targets.HasSeen(peer.ID{2}) {
			t.Error("HasSeen does not report the state on disk")
		}
		if diff := cmp.Diff(before, targets.Seen()); diff != "" {
			t.Errorf("Seen (-want +got):\n%s", diff)
		}
		_ = targets.List()
	}()
	select {
	case <-read:
	case <-time.After(10 * time.Second):
		t.Fatal("a reader waits for the disk")
	}

	disk.release()
	if err := <-saved; err != nil {
		t.Fatal(err)
	}
	if n := len(targets.Seen()); n != 2 {
		t.Errorf("%d nodes known after the write, want 2", n)
	}
}

// TestFailedWriteChangesNothing: an error of the disk reaches the caller, and the state stays what is on disk.
func TestFailedWriteChangesNothing(t *testing.T) {
	targets, err := Load(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := setTargets(targets, "a:1"); err != nil {
		t.Fatal(err)
	}
	full := errors.New("no space left on device")
	targets.write = func(string, []byte) error { return full }
	if err := setTargets(targets, "b:2"); !errors.Is(err, full) {
		t.Errorf("Set: %v, want %v", err, full)
	}
	if err := targets.RecordSeen(places(map[peer.ID]string{{1}: "10.0.0.1:6783"}), nil); !errors.Is(err, full) {
		t.Errorf("RecordSeen: %v, want %v", err, full)
	}
	if diff := cmp.Diff([]string{"a:1"}, targets.List()); diff != "" || len(targets.Seen()) != 0 {
		t.Errorf("seen %v, targets (-want +got):\n%s", targets.Seen(), diff)
	}
}

// TestLatestTargetsAreOnDisk: of concurrent updates none is lost, in memory or on disk.
func TestLatestTargetsAreOnDisk(t *testing.T) {
	const updates = 50
	dir := t.TempDir()
	targets, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range updates {
		wg.Go(func() {
			addr := fmt.Sprintf("10.0.0.%d:6783", i)
			if err := targets.RecordSeen(places(map[peer.ID]string{{1, byte(i)}: addr}), nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Go(func() {
		if err := setTargets(targets, "a:1"); err != nil {
			t.Error(err)
		}
	})
	wg.Wait()
	again, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(targets.saved.Load(), again.saved.Load()); diff != "" || len(again.Seen()) != updates {
		t.Errorf("%d members on disk, want %d; difference (-memory +disk):\n%s", len(again.Seen()), updates, diff)
	}
}

// setTargets replaces the operator's targets.
func setTargets(targets *Book, list ...string) error {
	return targets.Update(func([]string) []string { return list })
}

// TestConcurrentUpdatesLoseNothing: two targets that are added at the same time are both on disk.
func TestConcurrentUpdatesLoseNothing(t *testing.T) {
	dir := t.TempDir()
	targets, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	var group errgroup.Group
	for i := range 20 {
		group.Go(func() error {
			return targets.Update(func(list []string) []string { return append(list, fmt.Sprintf("h%d:1", i)) })
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	again, err := Load(dir)
	if err != nil || len(again.List()) != 20 {
		t.Errorf("%v: %v", err, again.List())
	}
}

// TestBookIsKept: what was recorded is there after a restart, and a file that holds no list is an error.
func TestBookIsKept(t *testing.T) {
	dir := t.TempDir()
	targets, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(
		setTargets(targets, "a:1", "b:2"),
		targets.RecordSeen(places(map[peer.ID]string{{1}: "10.0.0.1:6783", {2}: "10.0.0.2:6783"}), nil),
		targets.RecordSeen(nil, []peer.ID{{2}}),
	)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(targets.saved.Load(), again.saved.Load()); diff != "" {
		t.Error(diff)
	}
	if err := os.WriteFile(filepath.Join(dir, FileName), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); !errors.Is(err, ErrMalformed) {
		t.Errorf("a cut file: %v, want ErrMalformed", err)
	}
}

// places returns places without nicknames.
func places(at map[peer.ID]string) map[peer.ID]Place {
	all := make(map[peer.ID]Place)
	for id, addr := range at {
		all[id] = Place{Addr: addr}
	}
	return all
}

// TestNicknames: the nickname of a member is kept until the member has left.
func TestNicknames(t *testing.T) {
	dir := t.TempDir()
	b, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	id := peer.ID{1}
	if err := b.RecordSeen(map[peer.ID]Place{id: {"10.0.0.1:6783", "knot"}}, nil); err != nil {
		t.Fatal(err)
	}
	if b, err = Load(dir); err != nil || b.Name(id) != "knot" {
		t.Errorf("%q, %v", b.Name(id), err)
	}
	if err := b.RecordSeen(nil, []peer.ID{id}); err != nil || b.Name(id) != "" {
		t.Errorf("%q, %v after it has left", b.Name(id), err)
	}
}

// TestMaxSeen: members are kept up to the limit, and those that are known stay when there are more.
func TestMaxSeen(t *testing.T) {
	for _, n := range []int{1001, maxSeen, maxSeen + 1} {
		dir := t.TempDir()
		b, err := Load(dir)
		if err != nil {
			t.Fatal(err)
		}
		first := peer.ID{0xff}
		all := map[peer.ID]Place{}
		for i := range n - 1 {
			all[peer.ID{byte(i >> 8), byte(i), 1}] = Place{Addr: "10.0.0.1:6783"}
		}
		for _, at := range []map[peer.ID]Place{{first: {Addr: "10.0.0.9:6783"}}, all} {
			if err := b.RecordSeen(at, nil); err != nil {
				t.Fatal(err)
			}
		}
		if b, err = Load(dir); err != nil || len(b.Seen()) != min(n, maxSeen) || !b.HasSeen(first) {
			t.Errorf("%d members: %d are kept, %v", n, len(b.Seen()), err)
		}
	}
}
