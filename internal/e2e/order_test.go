package e2e

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestOrder: datagrams of one flow arrive in the order in which they were sent, over several queues, mixed with other
// flows, as single frames or in superframes, while the entropy ports are proven and from them. Some may be lost, because the
// senders do not wait for the receivers.
func TestOrder(t *testing.T) {
	nodes, pods := pair(t, "--datapath", "userspace", "--queues", "4")
	checkOrder(t, pods, "the first flows")
	if n := entropyPorts(t, nodes[0]); n == "0" || n == "" {
		t.Errorf("%q entropy ports are proven", n)
	}
	checkOrder(t, pods, "the next flows")
}

// checkOrder sends flows of datagrams from the first pod to the second.
func checkOrder(t *testing.T, pods []*pod, what string) {
	t.Helper()
	const flows, runs = 8, 300
	received := make(chan [2]int, flows)
	for flow := range flows {
		in := listenUDP(t, pods[1])
		out := dialUDP(t, pods[0], in.LocalAddr().(*net.UDPAddr).AddrPort())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			last, count, swapped := -1, 0, 0
			buf := make([]byte, 2048)
			for {
				n, err := in.Read(buf)
				if err != nil || n == 1 { // the end of the flow, or a timeout
					received <- [2]int{count, swapped}
					return
				}
				seq := int(binary.BigEndian.Uint32(buf))
				if seq <= last {
					swapped++
				}
				last = seq
				count++
			}
		}()
		go sendInOrder(t, out, flow, runs, ended)
	}
	total := 0
	for range flows {
		r := <-received
		total += r[0]
		if r[1] > 0 {
			t.Errorf("%s: %d of %d datagrams of a flow arrived after later ones", what, r[1], r[0])
		}
	}
	if total < flows*runs {
		t.Errorf("%s: only %d datagrams arrived", what, total)
	}
}

// sendInOrder sends runs of 20 numbered datagrams of one size, every second run as one superframe. Then it sends datagrams
// of one byte, which end the flow, until ended is closed.
func sendInOrder(t *testing.T, out *net.UDPConn, flow, runs int, ended <-chan struct{}) {
	raw, err := out.SyscallConn()
	if err != nil {
		t.Error(err)
		return
	}
	size := 100 + 150*flow
	seq := uint32(0)
	for run := range runs {
		buf := make([]byte, 0, 20*size)
		for range 20 {
			buf = append(binary.BigEndian.AppendUint32(buf, seq), make([]byte, size-4)...)
			seq++
		}
		segment := size * (run % 2)
		if err := raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, segment) }); err != nil {
			t.Error(err)
		}
		for step := max(segment*20, size); len(buf) > 0; buf = buf[step:] {
			_, _ = out.Write(buf[:step])
		}
	}
	_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, 0) })
	again := time.NewTicker(10 * time.Millisecond) // because the last datagram may be lost
	defer again.Stop()
	for {
		_, _ = out.Write([]byte{0})
		select {
		case <-again.C:
		case <-ended:
			return
		}
	}
}

func listenUDP(t *testing.T, p *pod) *net.UDPConn {
	t.Helper()
	var conn *net.UDPConn
	if err := p.Do(func() (err error) {
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(p.addr, 0)))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetReadBuffer(8 << 20)
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	return conn
}

func dialUDP(t *testing.T, p *pod, to netip.AddrPort) *net.UDPConn {
	t.Helper()
	var conn *net.UDPConn
	if err := p.Do(func() (err error) {
		conn, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}
