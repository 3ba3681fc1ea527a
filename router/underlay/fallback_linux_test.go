package underlay_test

import (
	"bytes"
	"errors"
	"net/netip"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"weft/router/underlay"
	"weft/router/underlay/underlaytest"
)

// numbers returns count different segments of size bytes.
func numbers(count, size int) []byte {
	b := make([]byte, count*size)
	for i := range b {
		b[i] = byte(i/size + i)
	}
	return b
}

// read returns the next n bytes that u receives, in datagrams of at most size bytes.
func read(t *testing.T, u *underlay.UDP, n, size int) (got []byte) {
	t.Helper()
	batch := make([]underlay.Datagram, 8)
	for i := range batch {
		batch[i].Buf = make([]byte, 1<<16)
	}
	for len(got) < n {
		m, err := underlaytest.Read(u, batch)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range batch[:m] {
			if d.SegmentSize > size || d.SegmentSize == 0 && len(d.Buf) > size {
				t.Fatalf("%d bytes in segments of %d", len(d.Buf), d.SegmentSize)
			}
			got = append(got, d.Buf...)
		}
	}
	return got
}

// refuse returns a function for Intercept that fails every message with segments with errno.
func refuse(errno unix.Errno) func(int) unix.Errno {
	return func(segmentSize int) unix.Errno {
		if segmentSize > 0 {
			return errno
		}
		return 0
	}
}

// TestGSODisabled: if the kernel or the device does not segment, all datagrams are sent nonetheless, and segmentation
// is disabled. The kernel refuses segmentation for a socket without checksums.
func TestGSODisabled(t *testing.T) {
	for name, breakIt := range map[string]func(*underlay.UDP) error{
		"no checksums": func(u *underlay.UDP) (err error) {
			return errors.Join(underlay.Control(u, func(fd int) { err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_NO_CHECK, 1) }), err)
		},
		"EINVAL": func(u *underlay.UDP) error { underlay.Intercept(u, refuse(unix.EINVAL)); return nil },
		"EIO":    func(u *underlay.UDP) error { underlay.Intercept(u, refuse(unix.EIO)); return nil },
	} {
		for _, dontFragment := range []bool{false, true} {
			a, b := listen(t, underlay.Config{DontFragment: dontFragment}), listen(t, underlay.Config{})
			if err := breakIt(a); err != nil {
				t.Fatal(err)
			}
			whole, single := numbers(150, 1000), []byte("single")
			for range 2 {
				batch := []underlay.Datagram{
					{Addr: at(b, "127.0.0.1"), Buf: single},
					{Addr: at(b, "127.0.0.1"), Buf: whole[:33_333], More: [][]byte{whole[33_333:]}, SegmentSize: 1000},
					{Addr: at(b, "127.0.0.1"), Buf: single},
				}
				if n, err := a.WriteBatch(batch); n != 3 || err != nil {
					t.Fatalf("%s: %d elements, %v", name, n, err)
				}
				if got := read(t, b, len(whole)+12, 1000); !bytes.Equal(got, slices.Concat(single, whole, single)) {
					t.Fatalf("%s: the datagrams are not what was sent", name)
				}
			}
			if s := a.Stats(); s.GSODisabled != 1 || s.Unsegmented == 0 || s.SendDatagrams != 2*152 || a.Features().Has(underlay.GSO) {
				t.Errorf("%s: %+v, features %s", name, s, a.Features())
			}
		}
	}
}

// TestSegmentsBeyondMTU: segments that are too large for the interface do not disable segmentation. They are sent in
// fragments or fail one by one, as the socket is configured.
func TestSegmentsBeyondMTU(t *testing.T) {
	smallLoopback(t, 1300)
	for _, ip := range []string{"127.0.0.1", "::1"} {
		for _, olderKernel := range []bool{false, true} { // which returns EINVAL instead of EMSGSIZE
			for _, dontFragment := range []bool{false, true} {
				a, b := listen(t, underlay.Config{DontFragment: dontFragment}), listen(t, underlay.Config{})
				if olderKernel {
					underlay.Intercept(a, func(size int) unix.Errno {
						if size > 1200 {
							return unix.EINVAL
						}
						return 0
					})
				}
				testBeyondMTU(t, a, b, at(b, ip), dontFragment)
			}
		}
	}
}

func testBeyondMTU(t *testing.T, a, b *underlay.UDP, to netip.AddrPort, dontFragment bool) {
	t.Helper()
	large, short, fits := numbers(10, 1400), []byte("behind the large ones"), numbers(10, 1200)
	for range 2 {
		batch := []underlay.Datagram{
			{Addr: to, Buf: large, SegmentSize: 1400}, {Addr: to, Buf: short}, {Addr: to, Buf: fits, SegmentSize: 1200},
		}
		n, err := a.WriteBatch(batch)
		want := slices.Concat(short, fits)
		if dontFragment {
			if n != 2 || !errors.Is(err, syscall.EMSGSIZE) || !errors.Is(batch[0].Err, syscall.EMSGSIZE) {
				t.Fatalf("to %s: %d elements, %v; want 2 and EMSGSIZE", to, n, err)
			}
		} else {
			if n != 3 || err != nil {
				t.Fatalf("to %s: %d elements, %v", to, n, err)
			}
			want = slices.Concat(large, want)
		}
		if got := read(t, b, len(want), 1400); !bytes.Equal(got, want) {
			t.Fatalf("to %s: the datagrams are not what was sent", to)
		}
	}
	if s := a.Stats(); s.GSODisabled != 0 || s.Unsegmented != 2 || !a.Features().Has(underlay.GSO) {
		t.Errorf("to %s: %+v, features %s", to, s, a.Features())
	}
}

// TestProbe: WriteBatch shows the MTU of the interface to a prober of the path MTU, only in DontFragment mode.
func TestProbe(t *testing.T) {
	neighbor(t, 1400)
	probe, plain := listen(t, underlay.Config{DontFragment: true}), listen(t, underlay.Config{})
	for to, headers := range map[string]int{"10.77.1.2:9": 28, "[fd77::2]:9": 48} {
		for _, size := range []int{1280, 1400, 1401, 9000, 65_535} {
			d := []underlay.Datagram{{Addr: netip.MustParseAddrPort(to), Buf: make([]byte, size-headers)}}
			_, err := probe.WriteBatch(d)
			if fits := size <= 1400; fits && err != nil || !fits && !errors.Is(err, syscall.EMSGSIZE) {
				t.Errorf("a packet of %d bytes to %s: %v", size, to, err)
			}
			if _, err := plain.WriteBatch(d); err != nil {
				t.Errorf("a packet of %d bytes to %s in fragments: %v", size, to, err)
			}
		}
	}
}

// TestMessageFails: an error that has nothing to do with segments needs one call, and fails all datagrams of the
// message.
func TestMessageFails(t *testing.T) {
	a, b := listen(t, underlay.Config{}), listen(t, underlay.Config{})
	calls := 0
	underlay.Intercept(a, func(size int) unix.Errno {
		if size != 100 {
			return 0
		}
		calls++
		return unix.EPERM
	})
	to := at(b, "127.0.0.1")
	batch := []underlay.Datagram{
		{Addr: to, Buf: numbers(3, 90)},
		{Addr: to, Buf: numbers(3, 100), SegmentSize: 100},
		{Addr: to, Buf: numbers(1, 100)},
		{Addr: to, Buf: numbers(70, 100), SegmentSize: 100},
		{Addr: to, Buf: numbers(3, 90)},
	}
	n, err := a.WriteBatch(batch)
	if n != 2 || !errors.Is(err, syscall.EPERM) || calls > 3 {
		t.Errorf("%d elements, %v, %d calls; want 2, EPERM, 3", n, err, calls)
	}
	for i, d := range batch {
		if failed := 0 < i && i < 4; (d.Err != nil) != failed {
			t.Errorf("element %d: %v", i, d.Err)
		}
	}
	if s := a.Stats(); s.Unsegmented != 0 || s.GSODisabled != 0 {
		t.Errorf("%+v", s)
	}
}

// TestSourceGone: a source address that the host has lost does not disable segmentation, and is not tried 64 times.
func TestSourceGone(t *testing.T) {
	neighbor(t, 1500)
	ip(t, "addr add 10.77.1.7/24 dev wul0")
	u := listen(t, underlay.Config{Source: netip.MustParseAddr("10.77.1.7")})
	calls := 0
	underlay.Intercept(u, func(int) unix.Errno { calls++; return 0 })
	d := []underlay.Datagram{{Addr: netip.MustParseAddrPort("10.77.1.2:9"), Buf: make([]byte, 5000), SegmentSize: 100}}
	if _, err := u.WriteBatch(d); err != nil {
		t.Fatal(err)
	}
	ip(t, "addr del 10.77.1.7/24 dev wul0")
	calls = 0
	if _, err := u.WriteBatch(d); err == nil || !u.Features().Has(underlay.GSO) || calls > 10 {
		t.Errorf("%v after %d calls, features %s", err, calls, u.Features())
	}
	ip(t, "addr add 10.77.1.7/24 dev wul0")
	if _, err := u.WriteBatch(d); err != nil {
		t.Errorf("with the address back: %v", err)
	}
}

// TestLateError: an error that an earlier datagram may have caused does not fail the next one, but a persistent error
// does.
func TestLateError(t *testing.T) {
	a, b := listen(t, underlay.Config{}), listen(t, underlay.Config{})
	failures := 0
	underlay.Intercept(a, func(int) unix.Errno {
		if failures > 0 {
			failures--
			return unix.ECONNREFUSED
		}
		return 0
	})
	whole := numbers(10, 100)
	for _, tt := range []struct{ failures, sent int }{{1, 1}, {1000, 0}} {
		failures = tt.failures
		n, err := a.WriteBatch([]underlay.Datagram{{Addr: at(b, "127.0.0.1"), Buf: whole[:100]}})
		if n != tt.sent || (err == nil) != (n == 1) {
			t.Errorf("%d failures: %d sent, %v", tt.failures, n, err)
		}
	}
	read(t, b, 100, 100)
}
