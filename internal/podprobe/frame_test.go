package podprobe

import (
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// TestFrame: a probe is a valid segment, with checksums that a firewall verifies, and its number is found again.
func TestFrame(t *testing.T) {
	for _, text := range []string{"10.32.0.0", "fd32::"} {
		addr := netip.MustParseAddr(text)
		f := frame(addr, 77)
		packet := gopacket.NewPacket(f, layers.LayerTypeEthernet, gopacket.Default)
		if e := packet.ErrorLayer(); e != nil {
			t.Errorf("%s: %v", text, e.Error())
		}
		tcp, ok := packet.TransportLayer().(*layers.TCP)
		if !ok || !tcp.SYN || tcp.Seq != 77 {
			t.Errorf("%s: %v", text, packet)
			continue
		}
		options := gopacket.SerializeOptions{ComputeChecksums: true, FixLengths: true}
		network, _ := packet.NetworkLayer().(interface {
			gopacket.NetworkLayer
			gopacket.SerializableLayer
		})
		if err := tcp.SetNetworkLayerForChecksum(network); err != nil {
			t.Fatal(err)
		}
		buf := gopacket.NewSerializeBuffer()
		if err := gopacket.SerializeLayers(buf, options, packet.LinkLayer().(*layers.Ethernet), network, tcp); err != nil {
			t.Fatal(err)
		}
		if string(buf.Bytes()[:len(f)]) != string(f) {
			t.Errorf("%s: %x, want %x", text, f, buf.Bytes())
		}
		if number, ok := numberOf(f); !ok || number != 77 {
			t.Errorf("%s: number %d, %v", text, number, ok)
		}
		if _, ok := numberOf(f[:len(f)-tcpLen]); ok {
			t.Errorf("%s: a truncated frame has a number", text)
		}
	}
	if _, ok := numberOf(make([]byte, 60)); ok {
		t.Error("another frame has a number")
	}
}
