package mesh

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft/internal/peer"

	"golang.org/x/sync/errgroup"
)

// slowDisk blocks every write until release is called.
type slowDisk struct {
	writing chan struct{} // receives a value when a write has begun
	proceed chan struct{} // closed by release
	release func()
}

func newSlowDisk(t *testing.T, targets *Targets) *slowDisk {
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

// TestSlowDiskDoesNotBlockReaders: while a write of the targets hangs, Mesh.Known and the readers of Targets return, with
// the state before that write. The allocator calls Known with its own lock held.
func TestSlowDiskDoesNotBlockReaders(t *testing.T) {
	targets, err := LoadTargets(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	before := map[peer.ID]string{{1}: "10.0.0.1:6783"}
	if err := targets.RecordSeen(before, nil); err != nil {
		t.Fatal(err)
	}
	m, err := New(Config{Identity: nodeIdentity(t), Transport: (&network{}).transport(t), Advertise: unusedAddr, Targets: targets})
	if err != nil {
		t.Fatal(err)
	}
	disk := newSlowDisk(t, targets)
	saved := make(chan error, 1)
	go func() { saved <- targets.RecordSeen(map[peer.ID]string{{2}: "10.0.0.2:6783"}, nil) }()
	<-disk.writing

	read := make(chan struct{})
	go func() {
		defer close(read)
		if diff := cmp.Diff([]peer.ID{{1}}, m.Known()); diff != "" {
			t.Errorf("Known (-want +got):\n%s", diff)
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
	if n := len(m.Known()); n != 2 {
		t.Errorf("%d nodes known after the write, want 2", n)
	}
}

// TestFailedWriteChangesNothing: an error of the disk reaches the caller, and the state stays what is on disk.
func TestFailedWriteChangesNothing(t *testing.T) {
	targets, err := LoadTargets(t.TempDir())
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
	if err := targets.RecordSeen(map[peer.ID]string{{1}: "10.0.0.1:6783"}, nil); !errors.Is(err, full) {
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
	targets, err := LoadTargets(dir)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range updates {
		wg.Go(func() {
			addr := fmt.Sprintf("10.0.0.%d:6783", i)
			if err := targets.RecordSeen(map[peer.ID]string{{1, byte(i)}: addr}, nil); err != nil {
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
	again, err := LoadTargets(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(targets.saved.Load(), again.saved.Load()); diff != "" || len(again.Seen()) != updates {
		t.Errorf("%d members on disk, want %d; difference (-memory +disk):\n%s", len(again.Seen()), updates, diff)
	}
}

// setTargets replaces the operator's targets.
func setTargets(targets *Targets, list ...string) error {
	return targets.Update(func([]string) []string { return list })
}

// TestConcurrentUpdatesLoseNothing: two targets that are added at the same time are both on disk.
func TestConcurrentUpdatesLoseNothing(t *testing.T) {
	dir := t.TempDir()
	targets, err := LoadTargets(dir)
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
	again, err := LoadTargets(dir)
	if err != nil || len(again.List()) != 20 {
		t.Errorf("%v: %v", err, again.List())
	}
}
