package tap_test

import (
	"encoding/binary"
	"errors"
	"testing"

	"weft/tap"
	"weft/tap/taptest"
	"weft/tap/virtio"
)

// udpFrame returns a frame of a UDP packet, from or to port.
func udpFrame(port uint16, answer bool) []byte {
	const host, pod, hostPort = 1, 2, 9
	f := make([]byte, 14+20+8+32)
	copy(f, []byte{0x0a, 0, 0, 0, 0, host, 0x0a, 0, 0, 0, 0, pod, 0x08, 0x00})
	ip := f[14:]
	copy(ip, []byte{0x45, 0, 0, byte(len(ip)), 0, 0, 0, 0, 64, 17})
	from, to := []byte{10, 77, 0, pod}, []byte{10, 77, 0, host}
	ports := [2]uint16{port, hostPort}
	if answer {
		copy(f, []byte{0x0a, 0, 0, 0, 0, pod, 0x0a, 0, 0, 0, 0, host})
		from, to, ports = to, from, [2]uint16{hostPort, port}
	}
	copy(ip[12:], from)
	copy(ip[16:], to)
	const checksum = 10 // where it stands in the header
	virtio.CompleteChecksum(virtio.Header{Flags: virtio.FlagNeedsChecksum, CsumOffset: checksum}, ip[:20])
	binary.BigEndian.PutUint16(ip[20:], ports[0])
	binary.BigEndian.PutUint16(ip[22:], ports[1])
	binary.BigEndian.PutUint16(ip[24:], 8+32)
	return f
}

// twoFlows returns the ports of two flows of udpFrame in different flow queues of q.
func twoFlows(t *testing.T, q tap.Queue) (a, b uint16) {
	t.Helper()
	for b = a + 1; b < 1000; b++ {
		if tap.FlowQueueOf(q, udpFrame(a, false)) != tap.FlowQueueOf(q, udpFrame(b, false)) {
			return a, b
		}
	}
	t.Fatal("all flows are in one flow queue")
	return
}

// TestFlowKeepsItsPlace: answers are written to where the flow was read first, so that the kernel does not move it.
func TestFlowKeepsItsPlace(t *testing.T) {
	taptest.InNamespace(t)
	d := open(t, tap.Config{Name: "wd-tap", MTU: 1500, Queues: 1})
	q, socket := d.Queues()[0], taptest.NewSocket(t, "wd-tap")
	b := tap.NewBatch(1<<18, 16, 0, 0)
	moved := 0
	for port := range uint16(32) {
		if err := socket.Send(udpFrame(port, false)); err != nil {
			t.Fatal(err)
		}
		b.Reset()
		if n, err := taptest.Read(q, b); n != 1 || err != nil {
			t.Fatalf("ReadFrames = %d, %v", n, err)
		}
		if tap.FlowQueueOf(q, udpFrame(port, true)) != b.FlowQueue(0) {
			moved++
		}
	}
	if moved > 0 {
		t.Errorf("%d flows of 32 would move", moved)
	}
}

// TestFlowQueues: a frame of a flow that sends rarely is in the next batch, although another flow fills its flow queue. The kernel keeps a
// flow in the flow queue to which its answers are written.
func TestFlowQueues(t *testing.T) {
	taptest.InNamespace(t)
	d := open(t, tap.Config{Name: "wd-tap", MTU: 1500, Queues: 1})
	q, socket := d.Queues()[0], taptest.NewSocket(t, "wd-tap")
	bulk, rare := twoFlows(t, q)
	answers := []tap.Frame{{Data: udpFrame(bulk, true)}, {Data: udpFrame(rare, true)}}
	if n, err := q.WriteFrames(answers); n != len(answers) || err != nil {
		t.Fatalf("WriteFrames = %d, %v", n, err)
	}
	send := func(port uint16, n int) {
		t.Helper()
		for range n {
			if err := socket.Send(udpFrame(port, false)); err != nil {
				t.Fatal(err)
			}
		}
	}
	const each = 16
	b := tap.NewBatch(1<<18, each, 0, 0)
	next := func() {
		t.Helper()
		b.Reset()
		if n, err := q.ReadFrames(b); n != each || err != nil {
			t.Fatalf("ReadFrames = %d, %v", n, err)
		}
	}
	send(bulk, 20*each)
	for range 8 { // a turn of the flow queue is over
		next()
	}
	if n, err := q.WriteFrames(answers); n != len(answers) || err != nil { // the kernel may have forgotten the first ones
		t.Fatalf("WriteFrames = %d, %v", n, err)
	}
	send(rare, 1)
	next()
	of, others := tap.FlowQueueOf(q, udpFrame(rare, false)), tap.FlowQueueOf(q, udpFrame(bulk, false))
	for i := range each {
		if got := b.FlowQueue(i); (got == of) != (i == 0) || got != of && got != others {
			t.Errorf("frame %d is from flow queue %d; the rare flow is in %d, the other in %d", i, got, of, others)
		}
	}
	if b.Waiting()&(1<<others) == 0 {
		t.Errorf("flow queues %b wait, and not %d", b.Waiting(), others)
	}
	for len(b.Frames()) > 0 && b.Waiting() != 0 {
		b.Reset()
		if _, err := q.ReadFrames(b); err != nil {
			t.Fatal(err)
		}
	}
	if b.Waiting() != 0 {
		t.Errorf("frames of flow queues %b wait although nothing can be read", b.Waiting())
	}
}

// TestSlowPodAlone: where the host takes no frames of one flow queue for a while, those of others are written nonetheless.
func TestSlowPodAlone(t *testing.T) {
	taptest.InNamespace(t)
	d := open(t, tap.Config{Name: "wd-tap", MTU: 1500, Queues: 1})
	q := d.Queues()[0]
	if err := tap.LimitWrites(q, 4096); err != nil {
		t.Fatal(err)
	}
	slowPort(t, d.Name(), "8bit")
	other := byte(2)
	for tap.FlowQueueOf(q, framesTo(other, 1)[0].Data) == tap.FlowQueueOf(q, framesTo(1, 1)[0].Data) {
		other++
	}
	frames := append(framesTo(1, 64), framesTo(other, 1)...)
	written, err := q.WriteFrames(frames[:64])
	if written == 64 || !errors.Is(err, tap.ErrFrame) {
		t.Fatalf("WriteFrames = %d, %v", written, err)
	}
	if n, err := q.WriteFrames(frames[60:]); n != 1 || !errors.Is(err, tap.ErrFrame) {
		t.Errorf("WriteFrames = %d, %v; want the frame of the other flow", n, err)
	}
}
