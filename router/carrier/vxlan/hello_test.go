package vxlan

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"weft/internal/peer"
	"weft/router/carrier"
)

// packetOf returns an IP packet with a hello.
func packetOf(h hello) []byte {
	frame := appendProbe(nil, h.probe, carrier.ProbeLen+len(h.token))
	copy(frame[tokenAt:], h.token[:])
	body := binary.BigEndian.AppendUint16(nil, h.from.Port())
	body = append(body, 0, 1, 0, 0, 0, 0) // the rest of the header of UDP
	body = binary.BigEndian.AppendUint32(append(body, 8, 0, 0, 0), h.vni<<8)
	body = append(body, frame...)
	if h.from.Addr().Is4() {
		header := make([]byte, 20)
		header[0], header[9] = 0x45, unix.IPPROTO_UDP
		copy(header[12:], h.from.Addr().AsSlice())
		return append(header, body...)
	}
	header := make([]byte, 40)
	header[0], header[6] = 0x60, unix.IPPROTO_UDP
	copy(header[8:], h.from.Addr().AsSlice())
	return append(header, body...)
}

// hellos are one of each family.
func hellos() []hello {
	probe := carrier.Probe{Willing: true, From: peer.ID{1}, To: peer.ID{2}, Nonce: 7}
	return []hello{
		{netip.MustParseAddrPort("192.0.2.1:40000"), 0xabcdef, probe, carrier.Token{1, 15: 16}},
		{netip.MustParseAddrPort("[2001:db8::1]:6785"), 1, probe, carrier.Token{1, 15: 16}},
	}
}

// TestParseHello: a hello is read from the first helloLen bytes of its packet, and from no fewer; other packets are none.
func TestParseHello(t *testing.T) {
	for _, want := range hellos() {
		packet := packetOf(want)
		if len(packet) > helloLen {
			t.Errorf("%d bytes, more than %d", len(packet), helloLen)
		}
		if got, ok := parseHello(append(packet, make([]byte, 100)...)); !ok || got != want {
			t.Errorf("got %+v, %v, want %+v", got, ok, want)
		}
		for n := range packet {
			if got, ok := parseHello(packet[:n]); ok {
				t.Errorf("the first %d bytes are %+v", n, got)
			}
		}
		options := append([]byte(nil), packet...)
		options[0]++ // options in IPv4, another version in IPv6
		if want.from.Addr().Is6() {
			options[0] = 0x70
		}
		if got, ok := parseHello(options); ok {
			t.Errorf("with another header: %+v", got)
		}
	}
}

func FuzzParseHello(f *testing.F) {
	for _, h := range hellos() {
		f.Add(packetOf(h))
	}
	f.Fuzz(func(t *testing.T, packet []byte) {
		if h, ok := parseHello(packet); ok && (!h.from.IsValid() || h.from.Port() == 0 || h.vni > MaxVNI) {
			t.Errorf("%x is %+v", packet, h)
		}
	})
}
