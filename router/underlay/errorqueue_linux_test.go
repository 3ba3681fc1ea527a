package underlay_test

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"weft/router/underlay"
	"weft/router/underlay/underlaytest"
)

// handler is a ReportHandler made of a function.
type handler func(underlay.Report)

func (h handler) HandleReport(r underlay.Report) { h(r) }

// closedPort returns an address without a socket.
func closedPort(t *testing.T, ip string) netip.AddrPort {
	t.Helper()
	u, err := underlay.Listen(underlay.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	return at(u, ip)
}

// serve reads from u until it is closed. all is closed when want bytes have arrived.
func serve(t *testing.T, u *underlay.UDP, want int) (all <-chan struct{}, wait func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		batch := make([]underlay.Datagram, 8)
		for i := range batch {
			batch[i].Buf = make([]byte, 1<<16)
		}
		for got := 0; ; {
			n, err := underlaytest.Read(u, batch)
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					t.Errorf("ReadBatch: %v", err)
				}
				return
			}
			for _, d := range batch[:n] {
				if got += len(d.Buf); got == want {
					close(done)
				}
			}
		}
	})
	return done, wg.Wait
}

// TestReports: the sender of a datagram to a closed port gets a report with the destination address.
func TestReports(t *testing.T) {
	for _, ip := range []string{"127.0.0.1", "::1"} {
		if ip == "::1" && !hasIPv6() {
			continue
		}
		reports := make(chan underlay.Report, 100)
		u := listen(t, underlay.Config{Reports: handler(func(r underlay.Report) { reports <- r })})
		_, wait := serve(t, u, -1)
		gone := closedPort(t, ip)
		if _, err := u.WriteBatch([]underlay.Datagram{{Addr: gone, Buf: []byte("x")}}); err != nil {
			t.Fatal(err)
		}
		want := underlay.Report{Addr: gone, Err: syscall.ECONNREFUSED, Offender: netip.MustParseAddr(ip)}
		if got := <-reports; got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		u.Close()
		wait()
		if got := u.Stats().Reports; got != (underlay.ReportStats{Refused: 1}) {
			t.Errorf("counted %+v", got)
		}
	}
}

// TestReportsAllocate: reports allocate nothing, at any rate.
func TestReportsAllocate(t *testing.T) {
	reported := 0
	u := listen(t, underlay.Config{Reports: handler(func(underlay.Report) { reported++ })})
	out := []underlay.Datagram{{Addr: closedPort(t, "127.0.0.1"), Buf: []byte("x")}, {Addr: at(u, "127.0.0.1"), Buf: []byte("y")}}
	in := []underlay.Datagram{{Buf: make([]byte, 10)}}
	if n := testing.AllocsPerRun(100, func() {
		if _, err := u.WriteBatch(out); err != nil {
			t.Fatal(err)
		}
		if _, err := underlaytest.Read(u, in); err != nil {
			t.Fatal(err)
		}
	}); n != 0 || reported == 0 {
		t.Errorf("%v allocations, %d reports", n, reported)
	}
}

// TestReportMTU: a router that drops a datagram reports its MTU, and the kernel does not apply that MTU to later
// datagrams. Datagrams that this host itself cannot send are not reported again.
func TestReportMTU(t *testing.T) {
	narrow(t, 1300)
	reports := make(chan underlay.Report, 100)
	u := listen(t, underlay.Config{DontFragment: true, Reports: handler(func(r underlay.Report) { reports <- r })})
	_, wait := serve(t, u, -1)
	to := netip.MustParseAddrPort("10.77.2.3:9")
	segments := []underlay.Datagram{{Addr: to, Buf: make([]byte, 2800), SegmentSize: 1400}}
	for range 2 {
		if _, err := u.WriteBatch(segments); err != nil {
			t.Fatal(err)
		}
		want := underlay.Report{Addr: to, Err: syscall.EMSGSIZE, MTU: 1300, Offender: netip.MustParseAddr("10.77.1.2")}
		if got := <-reports; got != want { // one for the message: it gets as far as there as one
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	if _, err := u.WriteBatch([]underlay.Datagram{{Addr: to, Buf: make([]byte, 2800)}}); !errors.Is(err, syscall.EMSGSIZE) {
		t.Errorf("a datagram larger than the interface takes: %v", err)
	}
	u.Close()
	wait()
	if got := u.Stats().Reports; got != (underlay.ReportStats{TooLong: 2}) {
		t.Errorf("counted %+v", got)
	}
}

// TestErrorsOnly: a socket with errors in its queue that is neither readable nor writable still receives, and can be closed.
func TestErrorsOnly(t *testing.T) {
	neighbor(t, 1500)
	reports := make(chan underlay.Report, 100)
	u := listen(t, underlay.Config{NoGSO: true, SendBuffer: 20_000, Reports: handler(func(r underlay.Report) { reports <- r })})
	b := listen(t, underlay.Config{})
	looks := underlay.CountReads(u)
	all, wait := serve(t, u, 3)
	var unresolved []underlay.Datagram // they stay in the send buffer until the neighbor lookup fails, which takes seconds
	for range 12 {
		unresolved = append(unresolved, underlay.Datagram{Addr: netip.MustParseAddrPort("10.77.1.9:9"), Buf: make([]byte, 1000)})
	}
	if _, err := u.WriteBatch(unresolved); err != nil {
		t.Fatal(err)
	}
	gone := closedPort(t, "127.0.0.1")
	for range 100 {
		if _, err := u.WriteBatch([]underlay.Datagram{{Addr: gone, Buf: []byte("x")}}); err != nil {
			t.Fatal(err)
		}
		if got := (<-reports).Err; got != syscall.ECONNREFUSED {
			t.Errorf("report: %v", got)
		}
	}
	for _, text := range []string{"a", "b", "c"} {
		if _, err := b.WriteBatch([]underlay.Datagram{{Addr: at(u, "127.0.0.1"), Buf: []byte(text)}}); err != nil {
			t.Fatal(err)
		}
	}
	<-all
	u.Close()
	wait()
	if looks.Load() > 1000 {
		t.Errorf("%d looks", looks.Load())
	}
}

// TestRefusedStorm: thousands of errors stop neither direction of a socket, and the reader does not wake up without a
// new cause.
func TestRefusedStorm(t *testing.T) {
	for name, cfg := range configs {
		t.Run(name, func(t *testing.T) { testRefusedStorm(t, cfg) })
	}
}

func testRefusedStorm(t *testing.T, cfg underlay.Config) {
	const storm, size = 10_000, 1000
	var refused atomic.Int64
	cfg.Reports = handler(func(underlay.Report) { refused.Add(1) })
	a := listen(t, cfg)
	b := listen(t, underlay.Config{})
	looks := underlay.CountReads(a)
	allA, waitA := serve(t, a, storm/10*size)
	allB, waitB := serve(t, b, storm/10*size)
	gone := closedPort(t, "127.0.0.1")
	for range storm / 10 {
		batch := make([]underlay.Datagram, 0, 11)
		for range 10 {
			batch = append(batch, underlay.Datagram{Addr: gone, Buf: []byte("lost")})
		}
		batch = append(batch, underlay.Datagram{Addr: at(b, "127.0.0.1"), Buf: make([]byte, size)})
		if n, err := a.WriteBatch(batch); n != len(batch) || err != nil {
			t.Fatalf("%d of %d sent, %v", n, len(batch), err)
		}
		if _, err := b.WriteBatch([]underlay.Datagram{{Addr: at(a, "127.0.0.1"), Buf: make([]byte, size)}}); err != nil {
			t.Fatal(err)
		}
	}
	<-allA
	<-allB
	a.Close()
	b.Close()
	waitA()
	waitB()
	reports := a.Stats().Reports
	t.Logf("%d datagrams to a closed port, %d reports, %d reads", storm, reports.Refused, looks.Load())
	if reports.Refused == 0 || int64(reports.Refused) != refused.Load() {
		t.Errorf("counted %+v, reported %d", reports, refused.Load())
	}
	if most := 2 * (storm + storm/10); looks.Load() > int64(most) {
		t.Errorf("%d looks, want at most %d", looks.Load(), most)
	}
}
