package poll_test

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/poll"
	"weft/internal/signal"
)

// part is a source with its two ends.
type part struct {
	source poll.Source
	write  func() // makes one more thing to read
	read   func() // reads everything
	close  func()
}

// kinds make the parts of each kind of source.
var kinds = map[string]func(t *testing.T) part{"kernel": newSocket, "memory": newMemory, "group": newGroup}

func newSocket(t *testing.T) part {
	t.Helper()
	f, write, read := newFile(t)
	return part{source: f.Source(), write: write, read: read, close: closer(t, f.Close)}
}

// newGroup returns a group of two files, of which the last one has something to read.
func newGroup(t *testing.T) part {
	t.Helper()
	first, _, _ := newFile(t)
	last, write, read := newFile(t)
	g, err := poll.NewGroup([]*poll.File{first, last})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	return part{source: g.Source(), write: write, read: read, close: closer(t, g.Close)}
}

// closer returns a function that reports the error of f.
func closer(t *testing.T, f func() error) func() {
	return func() {
		if err := f(); err != nil {
			t.Error(err)
		}
	}
}

// newFile returns a file, and functions that make something to read there and read everything.
func newFile(t *testing.T) (f *poll.File, write, read func()) {
	t.Helper()
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	to := conn.LocalAddr().(*net.UDPAddr)
	if f, err = poll.Take(conn, "socket"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	sender, err := net.DialUDP("udp4", nil, to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sender.Close() })
	write = func() {
		if _, err := sender.Write([]byte("x")); err != nil {
			t.Error(err)
		}
	}
	read = func() {
		err := f.Control(func(fd uintptr) {
			var b [8]byte
			for {
				if _, err := unix.Read(int(fd), b[:]); err != nil {
					if err != unix.EAGAIN {
						t.Error(err)
					}
					return
				}
			}
		})
		if err != nil {
			t.Error(err)
		}
	}
	return f, write, read
}

func newMemory(*testing.T) part {
	ready := signal.New()
	return part{source: poll.FromChan(ready.C()), write: ready.Set, read: func() {}, close: ready.Set}
}

// ended calls wait, and returns the channel that gets its error.
func ended(t *testing.T, wait func() error) <-chan error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- wait() }()
	return done
}

func receive(t *testing.T, what string, done <-chan error) {
	t.Helper()
	select {
	case err := <-done:
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("%s: the wait has not ended", what)
	}
}

// TestPoller: a poller of three sources, and the wait of one, end when one of them has something to read, has kept something, or is closed.
func TestPoller(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			a, b, c := kind(t), kind(t), kind(t)
			p, err := poll.New(a.source, b.source, c.source)
			if err != nil {
				t.Fatal(err)
			}
			for i, from := range []part{a, b, b, c, a} {
				done := ended(t, p.Wait)
				from.write()
				receive(t, "a write", done)
				if i == 1 {
					from.write()
					receive(t, "something is left", ended(t, p.Wait))
				}
				from.read()
			}
			done := ended(t, a.source.Wait)
			a.write()
			receive(t, "a single source", done)
			a.read()
			done = ended(t, p.Wait)
			b.close()
			receive(t, "a close", done)
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestClosedSource: a source of the kernel that was closed before the wait is ready, and its descriptor is gone.
func TestClosedSource(t *testing.T) {
	a, b := newSocket(t), newSocket(t)
	p, err := poll.New(a.source, b.source)
	if err != nil {
		t.Fatal(err)
	}
	a.close()
	receive(t, "the poller", ended(t, p.Wait))
	receive(t, "the poller again", ended(t, p.Wait))
	receive(t, "the source", ended(t, a.source.Wait))
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

func TestFile(t *testing.T) {
	var pair [2]int
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	other := os.NewFile(uintptr(pair[1]), "other")
	defer other.Close()
	f, err := poll.Take(os.NewFile(uintptr(pair[0]), "ours"), "ours")
	if err != nil {
		t.Fatal(err)
	}
	// A writer goes on as the other end reads, and ends when the file is closed.
	const size = 1 << 22
	wrote := make(chan int, 1)
	write := func(fd uintptr) {
		n := 0
		for b := make([]byte, size); n < size; {
			some, err := unix.Write(int(fd), b[n:])
			if err == nil {
				n += some
			} else if err != unix.EAGAIN || !f.WaitWritable() {
				break
			}
		}
		wrote <- n
	}
	done := ended(t, func() error { return f.Control(write) })
	if _, err := io.ReadFull(other, make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	receive(t, "reading", done)
	if n := <-wrote; n != size {
		t.Errorf("%d bytes written", n)
	}
	done = ended(t, func() error { return f.Control(write) })
	if _, err := io.ReadFull(other, make([]byte, 1)); err != nil { // the writer has begun
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	receive(t, "a close", done)
	if n := <-wrote; n == size {
		t.Error("all was written, although nothing was read")
	}
	if err := f.Control(func(uintptr) {}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Control after Close: %v", err)
	}
	if err := f.Close(); err != nil || !f.IsClosed() {
		t.Errorf("second Close: %v", err)
	}
}

// TestMixed: sources of the kernel and of memory are not waited for together.
func TestMixed(t *testing.T) {
	for _, sources := range [][]poll.Source{
		{newSocket(t).source, newMemory(t).source},
		{newMemory(t).source, newSocket(t).source},
	} {
		if _, err := poll.New(sources...); err == nil {
			t.Error("they were accepted")
		}
	}
}

// TestGroup: a group finds the files with something to read, and refuses after Close.
func TestGroup(t *testing.T) {
	var (
		files       []*poll.File
		write, read []func()
	)
	for range 3 {
		f, w, r := newFile(t)
		files, write, read = append(files, f), append(write, w), append(read, r)
	}
	g, err := poll.NewGroup(files)
	if err != nil {
		t.Fatal(err)
	}
	want := func(files uint32) {
		t.Helper()
		if got, err := g.Ready(); got != files || err != nil {
			t.Errorf("Ready = %b, %v; want %b", got, err, files)
		}
	}
	want(0)
	write[1]()
	write[2]()
	want(0b110)
	want(0b110)
	read[1]()
	want(0b100)
	read[2]()
	want(0)
	if n := testing.AllocsPerRun(10, func() { _, _ = g.Ready() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}
	if _, err := g.Ready(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Ready after Close: %v", err)
	}
	if _, err := poll.NewGroup(make([]*poll.File, 33)); err == nil {
		t.Error("a group of 33 files")
	}
	files[0].Close()
	if _, err := poll.NewGroup(files); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a group of a closed file: %v", err)
	}
}
