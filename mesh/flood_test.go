package mesh

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"weft/internal/target"
	"weft/mesh/addressbook"
	"weft/mesh/seal"
)

// joined is an Observer that closes both when two nodes are alive.
type joined struct {
	once sync.Once
	both chan struct{}
}

func (j *joined) MembersChanged(members []Member) {
	alive := 0
	for _, m := range members {
		if m.State == StateAlive {
			alive++
		}
	}
	if alive == 2 {
		j.once.Do(func() { close(j.both) })
	}
}

// startReal starts a node on a socket of the loopback interface.
func startReal(t *testing.T, keys string, peers ...target.Target) (*Mesh, target.Target, *joined) {
	t.Helper()
	tr, err := Listen(netip.MustParseAddrPort("127.0.0.1:0"), nil)
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(tr.(*memberlist.NetTransport).GetAutoBindPort())
	targets, err := addressbook.Load(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	j := &joined{both: make(chan struct{})}
	m, err := New(Config{
		Identity: nodeIdentity(t), Name: "x", Transport: tr, Advertise: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port),
		DataPort: 6784, Targets: targets, Keys: testKeys(keys), Peers: peers, Observer: j,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return m, target.Target{Host: "127.0.0.1", Port: port}, j
}

// TestFloodOfStreams: hosts without the secret open streams, and send as much as they can on each, or nothing. The process
// hardly grows, the streams end, and a node joins meanwhile.
func TestFloodOfStreams(t *testing.T) {
	m, at, _ := startReal(t, "a")
	addr := fmt.Sprintf("127.0.0.1:%d", at.Port)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	announced := binary.BigEndian.AppendUint32([]byte("\xf4\x04weft\x0a"), 20<<20)
	var wg sync.WaitGroup
	chunk := make([]byte, 64<<10)
	for i := range 96 {
		wg.Go(func() {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				return
			}
			defer func() { _ = c.Close() }()
			switch i % 3 {
			case 0: // what made memberlist reserve memory
				_, _ = c.Write(announced)
			case 1: // a first message that no key opens
				_, _ = c.Write(append([]byte{seal.Version}, make([]byte, seal.FirstLen-1)...))
			case 2: // silence
				_, _ = io.Copy(io.Discard, c) // until it is ended
				return
			}
			for range 20 << 20 / len(chunk) {
				if _, err := c.Write(chunk); err != nil {
					return
				}
			}
			t.Error("20 MiB were taken")
		})
	}
	_, _, j := startReal(t, "a", at)
	<-j.both
	wg.Wait()
	runtime.ReadMemStats(&after)
	const most = 48 << 20 // before: 600 MiB with 24 streams
	if grown := after.Sys - before.Sys; after.Sys > before.Sys && grown > most {
		t.Errorf("the process has grown by %d MiB", grown>>20)
	}
	t.Logf("grown by %d KiB", int64(after.Sys-before.Sys)>>10)
	d := &m.drops
	if d.version.Load() == 0 || d.noKey.Load() == 0 || d.unauthenticated.Load() == 0 {
		t.Errorf("counted: version %d, no key %d, unauthenticated %d", d.version.Load(), d.noKey.Load(), d.unauthenticated.Load())
	}
}

// TestFloodOfMessages: a member that sends long messages on many streams gets no more memory than the budget has, and no
// more streams than a node may have.
func TestFloodOfMessages(t *testing.T) {
	m, at, _ := startReal(t, "a")
	peer, _, j := startReal(t, "a", at)
	<-j.both
	addr := fmt.Sprintf("127.0.0.1:%d", at.Port)
	var streams []*stream
	busy := false
	for range 3 * 16 {
		s, err := peer.transport.openStream(addr, m.cfg.Identity.ID, 5*time.Second)
		if e, ok := errors.AsType[*RefusedError](err); ok && e.Reason == seal.RefusedBusy {
			busy = true
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		streams = append(streams, s)
	}
	if !busy || len(streams) > 16 {
		t.Errorf("%d streams at once", len(streams))
	}
	var wg sync.WaitGroup
	for _, s := range streams {
		wg.Go(func() {
			defer func() { _ = s.Close() }()
			_ = s.session.WriteMessage(s.Conn, seal.Unicast, make([]byte, 19<<20))
			_, _ = io.Copy(io.Discard, s)
		})
	}
	wg.Wait()
	if m.drops.busy.Load() == 0 {
		t.Error("no message was refused for want of room")
	}
	if _, err := peer.transport.openStream(addr, m.cfg.Identity.ID, 5*time.Second); err != nil {
		t.Errorf("a stream afterwards: %v", err)
	}
}
