package mesh

import (
	"net"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/memberlist"
)

// busyTransport ends as memberlist's own transport does: not before all that it has received was read.
type busyTransport struct {
	memberlist.Transport

	packets chan *memberlist.Packet
	streams chan net.Conn
}

func (b *busyTransport) PacketCh() <-chan *memberlist.Packet { return b.packets }
func (b *busyTransport) StreamCh() <-chan net.Conn           { return b.streams }
func (b *busyTransport) Shutdown() error {
	for range 100 {
		b.packets <- &memberlist.Packet{}
		_, far := net.Pipe()
		b.streams <- far
	}
	return nil
}

// TestShutdownUnderTraffic: packets and streams that arrive while a node stops do not keep it from stopping.
func TestShutdownUnderTraffic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &busyTransport{packets: make(chan *memberlist.Packet), streams: make(chan net.Conn)}
		m, err := New(Config{Identity: nodeIdentity(t), Transport: b, Advertise: unusedAddr})
		if err != nil {
			t.Fatal(err)
		}
		if err := m.transport.Shutdown(); err != nil {
			t.Error(err)
		}
	})
}
