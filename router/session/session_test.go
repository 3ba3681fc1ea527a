package session

import (
	"bytes"
	"crypto/cipher"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	"weft/internal/replay"
	"weft/internal/vaesgcm"
	"weft/router/wire"
)

// receive passes a datagram to a node as the datapath does.
func receive(n *Node, datagram []byte, from netip.AddrPort, now time.Time) error {
	h, _, err := wire.Parse(datagram)
	if err != nil {
		return err
	}
	if h.Type.IsHandshake() {
		return n.Receive(datagram, from, now)
	}
	s := n.Lookup(h.Session)
	if s == nil {
		n.HandleUnknownSession(h, from, now)
		return nil
	}
	if h.Type == wire.TypePlain {
		return s.AcceptPlain(h, datagram[wire.HeaderLen:])
	}
	_, newest, err := s.Open(h, datagram)
	if err != nil {
		return err
	}
	if newest {
		n.UpdateEndpoint(s.Peer(), from, now) // the tests do without a proof
	}
	if s.Confirm() {
		n.ConfirmSession(s, now)
	}
	return nil
}

// sealed returns a datagram that s seals.
func sealed(t testing.TB, s *Session, kind wire.Type, body string) []byte {
	t.Helper()
	counter, ok := s.Reserve(1)
	if !ok {
		t.Fatal("no counter left")
	}
	return s.Seal(nil, kind, counter, []byte(body))
}

func parse(t testing.TB, datagram []byte) wire.Header {
	t.Helper()
	h, _, err := wire.Parse(datagram)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// TestStandardAES: a node with the AES of the standard library exchanges frames with one that may use package vaesgcm.
func TestStandardAES(t *testing.T) {
	nodes, peers := newNodes(t, Config{Offer: NewOffer(AES256GCM, true), StandardAES: true}, Config{Offer: NewOffer(AES256GCM, true)})
	nodes[0].RequestSession(peers[1].ID, epoch)
	s := exchange(t, nodes, peers, epoch)
	types := [2]string{fmt.Sprintf("%T", s[0].seal), fmt.Sprintf("%T", s[1].seal)}
	if different := types[0] != types[1]; different != vaesgcm.Supported() {
		t.Errorf("AEADs of types %v, with VAES %v", types, vaesgcm.Supported())
	}
	for _, ends := range [][2]*Session{{s[0], s[1]}, {s[1], s[0]}} {
		datagram := sealed(t, ends[0], wire.TypeFrame, "hello")
		if body, _, err := ends[1].Open(parse(t, datagram), datagram); err != nil || string(body) != "hello" {
			t.Errorf("%q, %v", body, err)
		}
	}
}

func TestSealAndOpen(t *testing.T) {
	for _, c := range []Cipher{AES256GCM, ChaCha20Poly1305} {
		t.Run(c.String(), func(t *testing.T) {
			a, b := connect(t, Config{Offer: NewOffer(c, true), Secrets: []Secret{secretOf(1)}})
			if a.Cipher() != c || b.Cipher() != c || a.Plain() || b.Plain() {
				t.Fatalf("%s, %v", a.Cipher(), a.Plain())
			}
			for _, ends := range [][2]*Session{{a, b}, {b, a}} {
				datagram := sealed(t, ends[0], wire.TypeFrame, "hello")
				if bytes.Contains(datagram, []byte("hello")) || len(datagram) != wire.HeaderLen+5+wire.TagLen {
					t.Fatalf("sealed as %x", datagram)
				}
				again := bytes.Clone(datagram)
				body, newest, err := ends[1].Open(parse(t, datagram), datagram)
				if err != nil || string(body) != "hello" || !newest || &body[0] != &datagram[wire.HeaderLen] {
					t.Fatalf("%q, %v, %v", body, newest, err)
				}
				if _, _, err := ends[1].Open(parse(t, again), bytes.Clone(again)); !errors.Is(err, ErrReplayed) {
					t.Errorf("a second time: %v", err)
				}
				if _, _, err := ends[0].Open(parse(t, again), bytes.Clone(again)); err == nil {
					t.Error("its sender opens it")
				}
				for i := range len(again) * 8 {
					forged := bytes.Clone(again)
					forged[i/8] ^= 1 << (i % 8)
					h, _, err := wire.Parse(forged)
					if err != nil {
						continue
					}
					if _, _, err := ends[1].Open(h, forged); !errors.Is(err, ErrForged) && !errors.Is(err, ErrCounter) {
						t.Fatalf("bit %d changed: %v", i, err)
					}
				}
			}
		})
	}
}

// TestSealInPlace: in place or not, the datagram is the same.
func TestSealInPlace(t *testing.T) {
	a, b := connect(t, Config{})
	buf := append(make([]byte, wire.HeaderLen), "some text"...)
	buf = append(buf, make([]byte, wire.TagLen)...)
	counter, _ := a.Reserve(1)
	elsewhere := a.Seal([]byte("before"), wire.TypeFrame, counter, []byte("some text"))
	datagram := a.Seal(buf[:0], wire.TypeFrame, counter, buf[wire.HeaderLen:wire.HeaderLen+9])
	if !bytes.Equal(datagram, elsewhere[6:]) || &datagram[0] != &buf[0] {
		t.Errorf("in place %x, elsewhere %x", datagram, elsewhere)
	}
	if body, _, err := b.Open(parse(t, datagram), datagram); err != nil || string(body) != "some text" {
		t.Errorf("%q, %v", body, err)
	}
}

// TestOutOfOrder: within the window each datagram is accepted once, whatever the order.
func TestOutOfOrder(t *testing.T) {
	a, b := connect(t, Config{})
	var datagrams [][]byte
	for range 2000 {
		datagrams = append(datagrams, sealed(t, a, wire.TypeFrame, "x"))
	}
	newest := 0
	for _, i := range rand.New(rand.NewPCG(1, 1)).Perm(len(datagrams)) {
		for again := range 2 {
			d := bytes.Clone(datagrams[i])
			_, latest, err := b.Open(parse(t, d), d)
			if (err == nil) != (again == 0) {
				t.Fatalf("datagram %d, time %d: %v", i, again, err)
			}
			if latest {
				newest++
			}
		}
	}
	if newest < 2 || newest > 100 {
		t.Errorf("%d of 2000 were later than all before: not what chance gives", newest)
	}
}

// TestPlain: an unsealed datagram is accepted only if both ends agreed on it, once, and with a counter that outsiders
// cannot know.
func TestPlain(t *testing.T) {
	a, b := connect(t, Config{Trusted: TrustAll()})
	if !a.Plain() || !b.Plain() {
		t.Fatal("the session is not plain")
	}
	counter, _ := a.Reserve(2)
	h := wire.Header{Type: wire.TypePlain, Session: b.Index(), Counter: counter}
	for i, want := range []error{nil, ErrReplayed} {
		if err := b.AcceptPlain(h, nil); !errors.Is(err, want) {
			t.Errorf("time %d: %v, want %v", i, err, want)
		}
	}
	for _, guess := range []uint64{0, 1, counter ^ 1<<40, counter + maxCounters, counter - maxCounters, ^counter} {
		if err := b.AcceptPlain(wire.Header{Counter: guess}, nil); !errors.Is(err, ErrCounter) {
			t.Errorf("counter %x, where %x is next: %v", guess, counter+1, err)
		}
	}
	h.Counter = counter + 1
	if err := b.AcceptPlain(h, nil); err != nil {
		t.Errorf("the next one: %v", err)
	}
	sealedOnly, _ := connect(t, Config{})
	if err := sealedOnly.AcceptPlain(h, nil); !errors.Is(err, ErrPlain) {
		t.Errorf("where nothing was agreed: %v", err)
	}
}

// TestPlainNeedsBoth: frames are sealed unless both ends trust the path.
func TestPlainNeedsBoth(t *testing.T) {
	for _, trusted := range [][2]TrustList{{TrustAll(), {}}, {{}, TrustAll()}} {
		nodes, peers := newNodes(t, Config{Trusted: trusted[0]}, Config{Trusted: trusted[1]})
		nodes[0].RequestSession(peers[1].ID, epoch)
		for i, s := range exchange(t, nodes, peers, epoch) {
			if s == nil || s.Plain() {
				t.Errorf("node %d does not seal", i)
			}
		}
	}
}

// TestReserve: a session with no counters left reserves none.
func TestReserve(t *testing.T) {
	a, _ := connect(t, Config{})
	a.counters.Store(maxCounters - 1)
	if _, ok := a.Reserve(1); !ok {
		t.Error("the last one is refused")
	}
	for range 3 {
		if _, ok := a.Reserve(1); ok {
			t.Error("one too many")
		}
	}
}

// TestCountersAreUnique: no counter is reserved twice, however many are reserved at once.
func TestCountersAreUnique(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := &Session{sealFrom: rapid.Uint64().Draw(rt, "from") &^ (maxCounters - 1)}
		seen := map[uint64]bool{}
		for range rapid.IntRange(1, 50).Draw(rt, "calls") {
			n := rapid.IntRange(1, 100).Draw(rt, "n")
			first, ok := s.Reserve(n)
			if !ok {
				rt.Fatal("refused")
			}
			for c := first; c < first+uint64(n); c++ {
				if seen[c] || c-s.sealFrom >= maxCounters {
					rt.Fatalf("counter %x a second time, or out of range", c)
				}
				seen[c] = true
			}
		}
	})
}

func TestDirectionsAndSessionsDiffer(t *testing.T) {
	nodes, peers := newNodes(t, Config{}, Config{})
	nodes[0].RequestSession(peers[1].ID, epoch)
	first := exchange(t, nodes, peers, epoch)
	nodes[0].sendInitiation(nodes[0].remotes[peers[1].ID], epoch.Add(time.Minute))
	second := exchange(t, nodes, peers, epoch.Add(time.Minute))
	if first[0] == second[0] || first[0].Index() == second[0].Index() {
		t.Fatal("no second session")
	}
	streams := map[uint64]bool{}
	for _, s := range []*Session{first[0], first[1], second[0], second[1]} {
		streams[s.sealFrom] = true
	}
	if len(streams) != 4 {
		t.Errorf("%d beginnings of counters for four directions", len(streams))
	}
	nonce := make([]byte, 12)
	text := map[string]bool{}
	for _, s := range []*Session{first[0], first[1], second[0], second[1]} {
		text[string(s.seal.Seal(nil, nonce, []byte("text"), nil))] = true
	}
	if len(text) != 4 {
		t.Errorf("%d keys for four directions", len(text))
	}
}

func TestChoose(t *testing.T) {
	for _, tt := range []struct {
		a, b Offer
		want Cipher
	}{
		{NewOffer(0, true), NewOffer(0, true), AES256GCM},
		{NewOffer(0, true), NewOffer(0, false), ChaCha20Poly1305},
		{NewOffer(0, false), NewOffer(0, false), ChaCha20Poly1305},
		{NewOffer(AES256GCM, false), NewOffer(0, false), AES256GCM},
		{NewOffer(ChaCha20Poly1305, true), NewOffer(0, true), ChaCha20Poly1305},
		{NewOffer(AES256GCM, true), NewOffer(ChaCha20Poly1305, true), 0},
		{0, NewOffer(0, true), 0},
		{0xff, NewOffer(0, true), AES256GCM},
	} {
		for _, pair := range [][2]Offer{{tt.a, tt.b}, {tt.b, tt.a}} {
			got, err := Choose(pair[0], pair[1])
			if got != tt.want || errors.Is(err, ErrCipher) != (tt.want == 0) {
				t.Errorf("%03b and %03b: %s, %v; want %s", pair[0], pair[1], got, err, tt.want)
			}
		}
	}
}

// TestNoAllocation: sealing and opening a datagram allocate nothing.
func TestNoAllocation(t *testing.T) {
	for _, c := range []Cipher{AES256GCM, ChaCha20Poly1305} {
		a, b := connect(t, Config{Offer: NewOffer(c, true)})
		buf := make([]byte, wire.HeaderLen+1400+wire.TagLen)
		if n := testing.AllocsPerRun(100, func() {
			counter, _ := a.Reserve(1)
			datagram := a.Seal(buf[:0], wire.TypeFrame, counter, buf[wire.HeaderLen:wire.HeaderLen+1400])
			h, _, err := wire.Parse(datagram)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := b.Open(h, datagram); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", c, n)
		}
	}
}

// The benchmarks compare a session with its cipher alone, at the size of a datagram on Ethernet.

var benchSizes = []int{64, 1400}

// eachCipher runs a benchmark for each cipher and size.
func eachCipher(b *testing.B, f func(b *testing.B, c Cipher, size int)) {
	for _, c := range []Cipher{AES256GCM, ChaCha20Poly1305} {
		for _, size := range benchSizes {
			b.Run(c.String()+"/"+map[int]string{64: "64", 1400: "1400"}[size], func(b *testing.B) {
				b.SetBytes(int64(size))
				b.ReportAllocs()
				f(b, c, size)
			})
		}
	}
}

func rawAEAD(b *testing.B, c Cipher) cipher.AEAD {
	aead, err := c.newAEAD([KeyLen]byte{1}, false)
	if err != nil {
		b.Fatal(err)
	}
	return aead
}

func BenchmarkSeal(b *testing.B) {
	b.Run("session", func(b *testing.B) {
		eachCipher(b, func(b *testing.B, c Cipher, size int) {
			a, _ := connect(b, Config{Offer: NewOffer(c, true)})
			buf := make([]byte, wire.HeaderLen+size+wire.TagLen)
			for b.Loop() {
				counter, _ := a.Reserve(1)
				a.Seal(buf[:0], wire.TypeFrame, counter, buf[wire.HeaderLen:wire.HeaderLen+size])
			}
		})
	})
	b.Run("raw", func(b *testing.B) {
		eachCipher(b, func(b *testing.B, c Cipher, size int) {
			aead, buf := rawAEAD(b, c), make([]byte, size+wire.TagLen)
			nonce := make([]byte, aead.NonceSize())
			for b.Loop() {
				aead.Seal(buf[:0], nonce, buf[:size], nil)
			}
		})
	})
}

// BenchmarkOpen includes a copy of the datagram, for both variants, as opening destroys it.
func BenchmarkOpen(b *testing.B) {
	b.Run("session", func(b *testing.B) {
		eachCipher(b, func(b *testing.B, c Cipher, size int) {
			from, to := connect(b, Config{Offer: NewOffer(c, true)})
			counter, _ := from.Reserve(1)
			datagram := from.Seal(nil, wire.TypeFrame, counter, make([]byte, size))
			buf := make([]byte, len(datagram))
			h := parse(b, datagram)
			for b.Loop() {
				copy(buf, datagram)
				to.window = replay.Wide{} // otherwise the datagram would be a replay
				if _, _, err := to.Open(h, buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	})
	b.Run("raw", func(b *testing.B) {
		eachCipher(b, func(b *testing.B, c Cipher, size int) {
			aead := rawAEAD(b, c)
			nonce := make([]byte, aead.NonceSize())
			sealed := aead.Seal(nil, nonce, make([]byte, size), nil)
			buf := make([]byte, len(sealed))
			for b.Loop() {
				copy(buf, sealed)
				if _, err := aead.Open(buf[:0], nonce, buf, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	})
}
