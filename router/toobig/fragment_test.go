package toobig

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/ip4defrag"
	"github.com/google/gopacket/layers"
	"pgregory.net/rapid"

	"weft/internal/ether"
)

// fragments returns copies of the fragments of frame.
func fragments(frame []byte, mtu int) (out [][]byte, err error) {
	err = Fragment(frame, mtu, func(b []byte) { out = append(out, bytes.Clone(b)) })
	return out, err
}

// reassemble returns the payload of fragments in any order, and checks each of them. It also returns the header of the
// first one, and whether more fragments of the original packet follow.
func reassemble(t fataler, frames [][]byte, link, mtu int) (header, payload []byte, offset int, more bool) {
	covered, first := map[int]bool{}, 1<<16
	data := make([]byte, 1<<16)
	end := 0
	for _, f := range frames {
		ip := f[link:]
		n := int(ip[0]&15) * 4
		field := binary.BigEndian.Uint16(ip[6:])
		at := int(field&0x1fff) * 8
		if sum(ip[:n]) != 0xffff || int(binary.BigEndian.Uint16(ip[2:])) != len(ip) {
			t.Fatalf("checksum or length: %x", ip[:n])
		}
		if len(f)-ether.HeaderLen > mtu {
			t.Fatalf("%d bytes where %d fit", len(f)-ether.HeaderLen, mtu)
		}
		if at < first {
			first, header = at, ip[:n]
		}
		for i, b := range ip[n:] {
			if covered[at+i] {
				t.Fatalf("byte %d comes twice", at+i)
			}
			covered[at+i], data[at+i] = true, b
		}
		if at+len(ip)-n >= end {
			end, more = at+len(ip)-n, field&0x2000 != 0
		} else if field&0x2000 == 0 {
			t.Fatalf("the fragment at %d ends it", at)
		}
	}
	if len(covered) != end-first {
		t.Fatalf("%d bytes of %d", len(covered), end-first)
	}
	return header, data[first:end], first, more
}

type fataler interface{ Fatalf(string, ...any) }

// TestFragment: the packet can be reassembled from its fragments in any order, and from fragments of fragments.
func TestFragment(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		tags := make([]uint16, rapid.IntRange(0, 2).Draw(rt, "tags"))
		n := rapid.IntRange(0, 9000).Draw(rt, "payload")
		frame := udpFrame(t, func(ip *layers.IPv4) {
			ip.Flags = 0
			ip.Options = rapid.SampledFrom([][]layers.IPv4Option{nil, {
				{OptionType: 7, OptionLength: 11, OptionData: make([]byte, 9)}, // record route: first only
				{OptionType: 1},
				{OptionType: 0x94, OptionLength: 4, OptionData: []byte{0, 0}}, // router alert: all
			}}).Draw(rt, "options")
		}, n, tags...)
		link := ether.HeaderLen + 4*len(tags)
		mtu := rapid.IntRange(minIPv4+8, 4000).Draw(rt, "mtu")
		frames, err := fragments(frame, mtu)
		if err != nil {
			rt.Fatalf("%v", err)
		}
		smaller := rapid.IntRange(minIPv4+8, 4000).Draw(rt, "smaller")
		if rapid.Bool().Draw(rt, "again") && smaller < mtu {
			var again [][]byte
			for _, f := range frames {
				pieces, err := fragments(f, smaller)
				if err != nil {
					rt.Fatalf("%v", err)
				}
				again = append(again, pieces...)
			}
			frames, mtu = again, smaller
		}
		second := bytes.Clone(frames[len(frames)-1])
		frames = rapid.Permutation(frames).Draw(rt, "order")
		header, payload, offset, more := reassemble(rt, frames, link, mtu)
		p, _ := parse(frame)
		want, _ := p.payload()
		if !bytes.Equal(payload, want) || offset != 0 || more {
			rt.Fatalf("%d bytes at %d, more %v; want %d", len(payload), offset, more, len(want))
		}
		if !bytes.Equal(header[12:], p.ip[12:p.header]) || !bytes.Equal(header[4:6], p.ip[4:6]) || !bytes.Equal(second[:link], frame[:link]) {
			rt.Fatalf("headers: %x, %x", header, second[:link])
		}
		options := second[link+20 : link+int(second[link]&15)*4]
		if len(frames) > 1 && p.header > 20 && !bytes.Equal(options, []byte{0x94, 4, 0, 0}) {
			rt.Fatalf("options of the last one: %x", options)
		}
	})
}

// TestDefragmenter: the reassembly of gopacket gives the packet, too.
func TestDefragmenter(t *testing.T) {
	for _, n := range []int{1300, 1472, 2944, 8000, 60000} {
		frame := udpFrame(t, func(ip *layers.IPv4) { ip.Flags = 0 }, n)
		frames, err := fragments(frame, 1300)
		if err != nil {
			t.Fatal(err)
		}
		slices.Reverse(frames)
		var whole *layers.IPv4
		d := ip4defrag.NewIPv4Defragmenter()
		for _, f := range frames {
			ip := gopacket.NewPacket(f, layers.LayerTypeEthernet, gopacket.Default).Layer(layers.LayerTypeIPv4).(*layers.IPv4)
			if whole, err = d.DefragIPv4(ip); err != nil {
				t.Fatal(err)
			}
		}
		if whole == nil || !bytes.Equal(whole.Payload, frame[34:]) {
			t.Errorf("%d bytes: not what was cut", n)
		}
	}
}

// TestFragmentOfFragment: fragments of a middle fragment have the right offsets and flags.
func TestFragmentOfFragment(t *testing.T) {
	frame := udpFrame(t, func(ip *layers.IPv4) { ip.Flags, ip.FragOffset = layers.IPv4MoreFragments, 1000 }, 1400)
	frames, err := fragments(frame, 576)
	if err != nil {
		t.Fatal(err)
	}
	_, payload, offset, more := reassemble(t, frames, ether.HeaderLen, 576)
	if len(frames) != 3 || !bytes.Equal(payload, frame[34:]) || offset != 8000 || !more {
		t.Errorf("%d frames: %d bytes at %d, more %v", len(frames), len(payload), offset, more)
	}
}

func TestFragmentRefuses(t *testing.T) {
	plain := func(change func(*layers.IPv4)) []byte {
		return udpFrame(t, func(ip *layers.IPv4) {
			ip.Flags = 0
			if change != nil {
				change(ip)
			}
		}, 1400)
	}
	spoil := func(b []byte, at int, with ...byte) []byte {
		b = bytes.Clone(b)
		copy(b[at:], with)
		putChecksum(b[14:34])
		return b
	}
	good := plain(nil)
	for _, tt := range []struct {
		name  string
		frame []byte
		mtu   int
		want  error
	}{
		{"good", good, 68, nil},
		{"padding behind it", append(bytes.Clone(good), 1, 2, 3), 1300, nil},
		{"no link", good, 67, ErrMTU},
		{"negative", good, -1, ErrMTU},
		{"tags leave too little", udpFrame(t, func(ip *layers.IPv4) { ip.Flags = 0 }, 1400, 5), 71, ErrMTU},
		{"don't fragment", udpFrame(t, nil, 1400), 1300, ErrForbidden},
		{"ipv6", udp6Frame(t, 1400), 1300, ErrMalformed},
		{"cut", good[:1000], 1300, ErrMalformed},
		{"superframe of unknown length", spoil(good, 16, 0, 0), 1300, ErrMalformed},
		{"checksum", append(bytes.Clone(good[:24]), append([]byte{1, 2}, good[26:]...)...), 1300, ErrMalformed},
		{"beyond 64 KiB", spoil(good, 20, 0x1f, 0xff), 1300, ErrMalformed},
		{"nothing", nil, 1300, ErrMalformed},
	} {
		frames, err := fragments(tt.frame, tt.mtu)
		if !errors.Is(err, tt.want) || (tt.want == nil) == (len(frames) == 0) {
			t.Errorf("%s: %v and %d frames, want %v", tt.name, err, len(frames), tt.want)
		}
	}
	odd := udpFrame(t, func(ip *layers.IPv4) { ip.Flags = layers.IPv4MoreFragments }, 1401)
	if _, err := fragments(odd, 1300); !errors.Is(err, ErrMalformed) {
		t.Errorf("a middle of no multiple of 8: %v", err)
	}
}

func TestOptions(t *testing.T) {
	for _, tt := range []struct {
		options, want []byte
		ok            bool
	}{
		{nil, nil, true},
		{[]byte{1, 1, 1, 0}, nil, true},
		{[]byte{0x83, 3, 4, 0}, []byte{0x83, 3, 4, 0}, true},
		{[]byte{7, 3, 4, 1, 0x83, 3, 4, 0}, []byte{0x83, 3, 4, 0}, true},
		{[]byte{0x83, 3, 4, 0x94, 4, 0, 0, 0}, []byte{0x83, 3, 4, 0x94, 4, 0, 0, 0}, true},
		{[]byte{0, 0x83, 3, 4}, nil, true},
		{[]byte{0x83, 1, 0, 0}, nil, false},
		{[]byte{0x83, 5, 0, 0}, nil, false},
		{[]byte{1, 1, 1, 0x83}, nil, false},
	} {
		got, ok := laterOptions(tt.options)
		if ok != tt.ok || ok && !bytes.Equal(got, tt.want) {
			t.Errorf("%x: %x, %v; want %x, %v", tt.options, got, ok, tt.want, tt.ok)
		}
	}
}

// FuzzFragment: all fragments fit, and can be reassembled.
func FuzzFragment(f *testing.F) {
	f.Add(udpFrame(f, func(ip *layers.IPv4) { ip.Flags = 0 }, 1400), 600)
	f.Add(udpFrame(f, func(ip *layers.IPv4) { ip.Flags, ip.FragOffset = layers.IPv4MoreFragments, 3 }, 1400, 5), 100)
	f.Fuzz(func(t *testing.T, frame []byte, mtu int) {
		if p, ok := parse(frame); ok && p.version == 4 { // checksums are not found by chance
			frame = bytes.Clone(frame)
			putChecksum(frame[len(p.link) : len(p.link)+p.header])
		}
		frames, err := fragments(frame, min(mtu, 1<<16))
		if err != nil {
			if len(frames) > 0 {
				t.Fatal("an error after frames")
			}
			return
		}
		p, _ := parse(frame)
		want, _ := p.payload()
		field := p.fragmentField()
		_, payload, offset, more := reassemble(t, frames, len(p.link), mtu)
		if !bytes.Equal(payload, want) || offset != int(field&0x1fff)*8 || more != (field&0x2000 != 0) {
			t.Fatalf("%d bytes at %d, more %v", len(payload), offset, more)
		}
	})
}
