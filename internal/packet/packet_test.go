package packet

import (
	"encoding/hex"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"weft/internal/ether"
)

// unhex returns the bytes of a hexadecimal text with spaces.
func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// addresses are the destination and source addresses of the test frames.
const addresses = "0a0000000002 0a0000000001 "

func TestEthernet(t *testing.T) {
	for _, tt := range []struct {
		name    string
		frame   string
		maxTags int
		l3      int
		kind    uint16
		ok      bool
		vlan    int // -1: no whole tag
	}{
		{"untagged", "0800 45", 2, 14, ether.TypeIPv4, true, -1},
		{"802.1Q", "8100 e007 0800 45", 2, 18, ether.TypeIPv4, true, 7},
		{"802.1ad", "88a8 0064 8100 0fff 86dd", 2, 22, ether.TypeIPv6, true, 100},
		{"VLAN ID 0 is a priority tag", "8100 e000 0806", 2, 18, ether.TypeARP, true, 0},
		{"tags are not walked over", "8100 0007 0800 45", 0, 14, ether.TypeVLAN, true, 7},
		{"one tag too many", "8100 0001 8100 0002 8100 0003 0800", 2, 22, ether.TypeVLAN, true, 1},
		{"three tags are allowed", "8100 0001 8100 0002 8100 0003 0800", 3, 26, ether.TypeIPv4, true, 1},
		{"ends within the tag", "8100 0001 08", 2, 14, ether.TypeVLAN, false, -1},
		{"ends within the second tag", "88a8 0001 8100 0002", 2, 18, ether.TypeVLAN, false, 1},
		{"ends within the header", "08", 2, 0, 0, false, -1},
	} {
		frame := unhex(t, addresses+tt.frame)
		l3, kind, ok := Ethernet(frame, tt.maxTags)
		if l3 != tt.l3 || kind != tt.kind || ok != tt.ok {
			t.Errorf("%s: offset %d, type %04x, %v, want %d, %04x, %v", tt.name, l3, kind, ok, tt.l3, tt.kind, tt.ok)
		}
		id, tagged := VLAN(frame)
		if tagged != (tt.vlan >= 0) || tagged && int(id) != tt.vlan {
			t.Errorf("%s: VLAN %d, %v, want %d", tt.name, id, tagged, tt.vlan)
		}
	}
}

// ip6 returns an IPv6 packet with the next header and the bytes given, as hexadecimal text.
func ip6(t testing.TB, next Protocol, rest string) []byte {
	t.Helper()
	ip := make([]byte, IPv6Len)
	ip[0], ip[IPv6Next], ip[IPv6HopLimit] = 6<<4, uint8(next), 64
	payload := unhex(t, rest)
	ip[IPv6Length], ip[IPv6Length+1] = uint8(len(payload)>>8), uint8(len(payload))
	return append(ip, payload...)
}

func TestTransport(t *testing.T) {
	const padding6 = " 0104 00000000 " // PadN of 6 bytes (RFC 8200, section 4.2)
	tcpBytes := strings.Repeat("00", 20)
	// The examples of RFC 8200, appendix A: options X (8-byte field at 8n, 4-byte field) and Y (1, 2 and 4-byte
	// fields).
	const exampleX = "3b 01 01 00 1e 0c 11111111 2222222222222222"
	const exampleXY = "3b 03 01 00 1e 0c 11111111 2222222222222222 01 01 00 3e 07 33 4444 55555555 01 02 00 00"
	many := func(n int) string { return strings.Repeat("3c 00"+padding6, n-1) + "06 00" + padding6 + tcpBytes }

	for _, tt := range []struct {
		name   string
		next   Protocol
		rest   string
		walk   Extensions
		proto  Protocol
		at     int
		result Result
	}{
		{"no extension", TCP, tcpBytes, AllExtensions, TCP, 40, Found},
		{"no next header", NoNextHeader, "", AllExtensions, NoNextHeader, 40, Found},
		{"hop-by-hop options", HopByHop, "06 00" + padding6 + tcpBytes, Options, TCP, 48, Found},
		{"destination options", DestinationOptions, "11 00" + padding6 + tcpBytes, Options, UDP, 48, Found},
		{"options are not walked", DestinationOptions, "11 00" + padding6, Fragments | Auth, DestinationOptions, 40, Found},
		{"RFC 8200 appendix A, option X", HopByHop, exampleX, Options, NoNextHeader, 56, Found},
		{"RFC 8200 appendix A, options X and Y", DestinationOptions, exampleXY, Options, NoNextHeader, 72, Found},
		{"segment routing (RFC 8754)", Routing, "06 02 04 00 00000000" + strings.Repeat("ab", 16) + tcpBytes, Options, TCP, 64, Found},
		{"authentication (RFC 4302: length in 4-byte words, minus 2)", AH,
			"06 04 0000 00000001 00000002 000102030405060708090a0b" + tcpBytes, Auth, TCP, 64, Found},
		{"authentication is not walked", AH, "06 04", Options, AH, 40, Found},
		{"first fragment", Fragment, "06 00 0001 12345678" + tcpBytes, AllExtensions, TCP, 48, Found},
		{"atomic fragment (RFC 6946)", Fragment, "06 00 0000 12345678" + tcpBytes, AllExtensions, TCP, 48, Found},
		{"later fragment", Fragment, "06 00 0008 12345678" + tcpBytes, AllExtensions, TCP, 48, LaterFragment},
		{"later fragment: its payload is no header", Fragment, "3c 00 0009 12345678 06 00" + padding6, AllExtensions,
			DestinationOptions, 48, LaterFragment},
		{"fragments are not walked", Fragment, "06 00 0008 12345678", Options | Auth, Fragment, 40, Found},
		{"ESP ends every walk", HopByHop, "32 00" + padding6 + "00000001 00000002", AllExtensions, ESP, 48, Found},
		{"the order of RFC 8200, section 4.1", HopByHop, "3c 00" + padding6 + "2b 00" + padding6 + "2c 00 00 00 00000000" +
			"33 00 0001 12345678" + "3c 01 0000 00000001 00000002" + "06 00" + padding6 + tcpBytes, AllExtensions, TCP, 92, Found},
		{"seven extensions", DestinationOptions, many(7), Options, TCP, 96, Found},
		{"eight extensions", DestinationOptions, many(8), Options, DestinationOptions, 96, TooMany},
		{"ends within an extension's first 8 bytes", HopByHop, "06 00 0104", Options, HopByHop, 40, Truncated},
		{"ends within a long extension", HopByHop, "06 01" + padding6, Options, HopByHop, 40, Truncated},
		{"ends within the second extension", HopByHop, "33 00" + padding6 + "06 04 0000 00000001", AllExtensions, AH, 48, Truncated},
		{"ends behind the extension", HopByHop, "06 00" + padding6, Options, TCP, 48, Found},
	} {
		proto, at, result := Transport(ip6(t, tt.next, tt.rest), tt.walk)
		if proto != tt.proto || at != tt.at || result != tt.result {
			t.Errorf("%s: protocol %d at %d, result %d, want %d at %d, result %d", tt.name, proto, at, result, tt.proto, tt.at, tt.result)
		}
	}
	if _, _, result := Transport(make([]byte, IPv6Len-1), AllExtensions); result != Truncated {
		t.Errorf("39 bytes: result %d, want truncated", result)
	}
}

func TestIPv4HeaderLen(t *testing.T) {
	for first, want := range map[byte]int{0x45: 20, 0x46: 24, 0x4f: 60, 0x40: 0} {
		if got := IPv4HeaderLen([]byte{first}); got != want {
			t.Errorf("IHL %02x: %d, want %d", first, got, want)
		}
	}
}

func TestNoAllocation(t *testing.T) {
	frame := append(unhex(t, addresses+"88a8 0064 8100 0fff 86dd"), ip6(t, HopByHop, "06 00 0104 00000000"+strings.Repeat("00", 20))...)
	if n := testing.AllocsPerRun(100, func() {
		l3, _, _ := Ethernet(frame, 2)
		VLAN(frame)
		Transport(frame[l3:], AllExtensions)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// found is what gopacket finds in a frame: an IPv6 header at l3, and behind its extension headers proto at l4 from
// there.
type found struct {
	l3, l4 int
	proto  Protocol
	walk   Extensions // that gets there
}

// reference decodes frame with gopacket. ok is false where gopacket does not reach a fragment header, TCP, UDP or
// ICMPv6 behind IPv6 within the bounds of this package. gopacket decodes nothing behind a fragment header.
func reference(frame []byte, maxTags int) (f found, ok bool) {
	offset, tags, extensions := 0, 0, 0
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.DecodeOptions{NoCopy: true})
	for _, layer := range p.Layers() {
		f.l4 = offset - f.l3
		within := f.l3 > 0 && tags <= maxTags && extensions <= MaxExtensions
		switch layer.LayerType() {
		case layers.LayerTypeEthernet:
		case layers.LayerTypeDot1Q:
			tags++
		case layers.LayerTypeIPv6:
			if f.l3 != 0 {
				return found{}, false // a tunnel: the walks end at its protocol
			}
			f.l3 = offset
		case layers.LayerTypeIPv6HopByHop, layers.LayerTypeIPv6Routing, layers.LayerTypeIPv6Destination, layers.LayerTypeIPSecAH:
			extensions++
		case layers.LayerTypeIPv6Fragment:
			f.proto, f.walk = Fragment, Options|Auth
			return f, within
		case layers.LayerTypeTCP:
			f.proto, f.walk = TCP, AllExtensions
			return f, within
		case layers.LayerTypeUDP:
			f.proto, f.walk = UDP, AllExtensions
			return f, within
		case layers.LayerTypeICMPv6:
			f.proto, f.walk = ICMPv6, AllExtensions
			return f, within
		default:
			return found{}, false
		}
		offset += len(layer.LayerContents())
	}
	return found{}, false
}

// checkFrame fails t where the walks read beyond frame, contradict each other, or differ from gopacket where that
// reaches a transport header. It reports whether gopacket did.
func checkFrame(t *testing.T, frame []byte) (compared bool) {
	frame = slices.Clip(frame)
	const maxTags = 2
	l3, kind, ok := Ethernet(frame, maxTags)
	if l3 > len(frame) || ok && l3 < ether.HeaderLen || !ok && len(frame) >= ether.HeaderLen+maxTags*TagLen {
		t.Fatalf("payload at %d of %d, %v", l3, len(frame), ok)
	}
	if id, tagged := VLAN(frame); tagged != (l3 > ether.HeaderLen) || id > 4095 {
		t.Fatalf("VLAN %d, %v with the payload at %d", id, tagged, l3)
	}
	for walk := range AllExtensions + 1 {
		proto, at, result := Transport(frame[l3:], walk)
		switch whole := len(frame)-l3 >= IPv6Len; {
		case at > len(frame)-l3, result == 0, whole && at < IPv6Len, !whole && result != Truncated:
			t.Fatalf("walk %03b: header at %d of %d, result %d", walk, at, len(frame)-l3, result)
		case result == Found && extensionSet(proto)&walk != 0:
			t.Fatalf("walk %03b stopped at protocol %d", walk, proto)
		case at > IPv6Len && walk == 0:
			t.Fatalf("an empty walk went to %d", at)
		}
	}
	want, compared := reference(frame, maxTags)
	if !compared {
		return false
	}
	if !ok || l3 != want.l3 || kind != ether.TypeIPv6 {
		t.Fatalf("payload at %d, type %04x, %v; gopacket has IPv6 at %d", l3, kind, ok, want.l3)
	}
	proto, at, result := Transport(frame[l3:], want.walk)
	if proto != want.proto || at != want.l4 || result != Found {
		t.Fatalf("protocol %d at %d, result %d; gopacket has %d at %d", proto, at, result, want.proto, want.l4)
	}
	return true
}

// randomFrame returns an IPv6 frame with random tags and extension headers before a UDP header.
func randomFrame(t testing.TB, r *rand.Rand) []byte {
	frame := unhex(t, addresses)
	for range r.IntN(3) {
		frame = append(frame, [][]byte{{0x81, 0x00}, {0x88, 0xa8}}[r.IntN(2)]...)
		frame = append(frame, byte(r.Uint32()), byte(r.Uint32()))
	}
	chain := []Protocol{}
	if r.IntN(2) == 0 {
		chain = append(chain, HopByHop) // nowhere but first
	}
	for range r.IntN(MaxExtensions) {
		chain = append(chain, []Protocol{Routing, DestinationOptions, AH, Fragment}[r.IntN(4)])
	}
	chain = append(chain, UDP)
	var payload []byte
	for i, p := range chain[:len(chain)-1] {
		payload = append(payload, extension(r, p, chain[i+1])...)
	}
	payload = append(payload, 0x03, 0xe8, 0x00, 0x35, 0x00, 0x08, 0x00, 0x00)
	frame = append(frame, 0x86, 0xdd)
	return append(frame, ip6(t, chain[0], hex.EncodeToString(payload))...)
}

// extension returns an extension header of the kind p, with next behind it.
func extension(r *rand.Rand, p, next Protocol) []byte {
	switch p {
	case Fragment:
		return []byte{uint8(next), 0, 0, uint8(r.IntN(2)), 1, 2, 3, 4} // atomic, or the first of several
	case AH:
		n := 1 + 2*r.IntN(3) // a multiple of 8 bytes, 12 of them fixed
		return append([]byte{uint8(next), uint8(n + 1)}, make([]byte, 4*(n+3)-6)...)
	case Routing:
		n := 2 * r.IntN(3)
		return append([]byte{uint8(next), uint8(n), 0, 0}, make([]byte, 8*(n+1)-4)...)
	default:
		n := r.IntN(4)
		return append([]byte{uint8(next), uint8(n), 1, uint8(8*n + 4)}, make([]byte, 8*n+4)...)
	}
}

// TestAgreesWithGopacket compares the walks with gopacket's layers, on valid frames and on the same frames after
// damage.
func TestAgreesWithGopacket(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	whole, damaged := 0, 0
	const rounds = 3000
	for range rounds {
		frame := randomFrame(t, r)
		if checkFrame(t, frame) {
			whole++
		}
		frame = frame[:r.IntN(len(frame)+1)]
		if len(frame) > ether.HeaderLen {
			frame[12+r.IntN(len(frame)-12)] = byte(r.Uint32())
		}
		if checkFrame(t, frame) {
			damaged++
		}
	}
	t.Logf("compared: %d whole frames, %d damaged ones", whole, damaged)
	if whole < rounds/2 {
		t.Errorf("gopacket decoded only %d of %d frames", whole, rounds)
	}
}

// FuzzWalk: no frame makes a walk read beyond it, and gopacket agrees where it decodes the frame.
func FuzzWalk(f *testing.F) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 16 {
		f.Add(randomFrame(f, r))
	}
	f.Add(unhex(f, addresses+"0800 45"))
	f.Add(unhex(f, addresses+"8100 0001 8100 0002 8100 0003 0800"))
	f.Fuzz(func(t *testing.T, frame []byte) { checkFrame(t, frame) })
}
