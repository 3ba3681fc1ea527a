package e2e

import (
	"encoding/binary"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"weft/internal/nettest/labtest"
)

// numbers sends numbered UDP datagrams from one pod to another, and counts how often each number arrives.
type numbers struct {
	out  *net.UDPConn
	next uint32

	mu      sync.Mutex
	arrived map[uint32]int
}

// newNumbers starts a receiver, which ends with the test.
func newNumbers(t *testing.T, from, to *pod) *numbers {
	t.Helper()
	in := listenUDP(t, to)
	_ = in.SetReadDeadline(time.Time{}) // listenUDP sets a deadline, which is too early for several sends
	s := &numbers{arrived: map[uint32]int{}, out: dialUDP(t, from, in.LocalAddr().(*net.UDPAddr).AddrPort())}
	go func() {
		buf := make([]byte, 2048)
		for {
			n, err := in.Read(buf)
			if err != nil {
				return
			}
			if n >= 4 {
				s.mu.Lock()
				s.arrived[binary.BigEndian.Uint32(buf)]++
				s.mu.Unlock()
			}
		}
	}()
	return s
}

// send sends count more numbers and waits until all have arrived.
func (s *numbers) send(t *testing.T, count int) {
	t.Helper()
	for range count {
		if _, err := s.out.Write(binary.BigEndian.AppendUint32(make([]byte, 0, 100), s.next)); err != nil {
			t.Fatal(err)
		}
		s.next++
	}
	labtest.Until(t, patience, func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.arrived) != int(s.next) {
			return fmt.Errorf("%d of %d numbers arrived", len(s.arrived), s.next)
		}
		return nil
	})
}

// once fails the test if a number arrived more than once.
func (s *numbers) once(t *testing.T) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	again := 0
	for _, n := range s.arrived {
		again += n - 1
	}
	if again > 0 {
		t.Errorf("%d numbers had %d duplicates", s.next, again)
	}
}
