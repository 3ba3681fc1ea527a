package seal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/flynn/noise"
	"github.com/google/go-cmp/cmp"

	"weft/internal/peer"
)

func derived(t *testing.T, name byte, cluster string) *Keys {
	t.Helper()
	k, err := Derive([KeyLen]byte{name}, cluster)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestPackets: a packet opens with its own key only, and not after any change.
func TestPackets(t *testing.T) {
	a, b, other := derived(t, 'a', "weft"), derived(t, 'b', "weft"), derived(t, 'a', "other")
	h := Header{Sender: peer.ID{1}, Instance: 2, Counter: 3, Uptime: 4 * time.Second, Receiver: peer.ID{5}}
	packet := a.Seal(Packet, h, []byte("body"))
	kind, got, body, key, err := Open([]*Keys{b, other, a}, packet)
	if err != nil || kind != Packet || key != 2 || string(body) != "body" || len(packet) != Overhead+4 {
		t.Fatalf("%v, type %v, key %d, body %q, %d bytes", err, kind, key, body, len(packet))
	}
	if diff := cmp.Diff(h, got); diff != "" {
		t.Error(diff)
	}
	if _, _, _, _, err := Open([]*Keys{b, other}, packet); !errors.Is(err, ErrKey) {
		t.Errorf("with other keys: %v", err)
	}
	for i := range packet {
		changed := bytes.Clone(packet)
		changed[i] ^= 1
		if _, _, _, _, err := Open([]*Keys{a}, changed); err == nil {
			t.Errorf("with byte %d changed it opens", i)
		}
		if _, _, _, _, err := Open([]*Keys{a}, packet[:i]); err == nil {
			t.Errorf("the first %d bytes open", i)
		}
	}
	if _, _, _, _, err := Open([]*Keys{a}, []byte("\xf4\x04weft")); !errors.Is(err, ErrVersion) {
		t.Errorf("gossip of memberlist: %v", err)
	}
	h.Uptime = maxUptime + time.Millisecond
	if _, _, _, _, err := Open([]*Keys{a}, a.Seal(Packet, h, nil)); !errors.Is(err, ErrMalformed) {
		t.Errorf("an uptime that overflows: %v", err)
	}
	if text := fmt.Sprintf("%v %+v %#v %x", a, a, a, a); strings.Contains(text, "stream") || strings.Contains(text, "0x") {
		t.Errorf("keys are printed: %s", text)
	}
}

// handshake performs a handshake between two ends.
func handshake(t *testing.T, dialer, dialed End, k *Keys) (atDialer, atDialed Remote, there, here *Session) {
	t.Helper()
	i, first, err := Initiate(dialer, k)
	if err != nil {
		t.Fatal(err)
	}
	r, _, err := Respond(dialed, []*Keys{derived(t, 'z', "weft"), k}, first)
	if err != nil {
		t.Fatal(err)
	}
	second, err := r.Answer(exampleDialed)
	if err != nil {
		t.Fatal(err)
	}
	third, atDialer, there, err := i.Finish(second, exampleDialer)
	if err != nil {
		t.Fatal(err)
	}
	atDialed, here, err = r.Finish(third)
	if err != nil {
		t.Fatal(err)
	}
	return atDialer, atDialed, there, here
}

func ends(t *testing.T) (dialer, dialed End) {
	t.Helper()
	dialer, dialed = exampleEnd(t, 1, 2), exampleEnd(t, 3, 4)
	dialer.Random, dialed.Random = nil, nil
	return dialer, dialed
}

// TestHandshake: both ends learn the key and the hello of the other one, and messages of all lengths pass.
func TestHandshake(t *testing.T) {
	k := derived(t, 'a', "weft")
	dialer, dialed := ends(t)
	atDialer, atDialed, there, here := handshake(t, dialer, dialed, k)
	if diff := cmp.Diff(Remote{dialed.Public, exampleDialed}, atDialer, addrs); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(Remote{dialer.Public, exampleDialer}, atDialed, addrs); diff != "" {
		t.Error(diff)
	}
	budget := NewBudget(2 << 20)
	for _, n := range []int{0, 1, maxRecord - tagLen - messageHeader, maxRecord - tagLen - messageHeader + 1, 300_000} {
		var wire bytes.Buffer
		want := bytes.Repeat([]byte{7}, n)
		if err := there.WriteMessage(&wire, Unicast, want); err != nil {
			t.Fatal(err)
		}
		kind, got, err := here.ReadMessage(&wire, n, budget.Share(host))
		if err != nil || kind != Unicast || !bytes.Equal(got, want) || wire.Len() != 0 {
			t.Fatalf("%d bytes: %v, kind %d, %d bytes, %d left", n, err, kind, len(got), wire.Len())
		}
		budget.Share(host).Give(cap(got))
		if budget.Left() != 2<<20 {
			t.Fatalf("the budget has %d bytes left after %d", budget.Left(), n)
		}
	}
}

// addrs compares addresses.
var addrs = cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })

// TestRecordedStreamProvesNothing: the messages of a handshake mean nothing in another one.
func TestRecordedStreamProvesNothing(t *testing.T) {
	k := derived(t, 'a', "weft")
	dialer, dialed := ends(t)
	i, first, err := Initiate(dialer, k)
	if err != nil {
		t.Fatal(err)
	}
	record := func() ([]byte, *Responder) {
		r, _, err := Respond(dialed, []*Keys{k}, first)
		if err != nil {
			t.Fatal(err)
		}
		second, err := r.Answer(exampleDialed)
		if err != nil {
			t.Fatal(err)
		}
		return second, r
	}
	second, _ := record()
	third, _, _, err := i.Finish(second, exampleDialer)
	if err != nil {
		t.Fatal(err)
	}
	if _, again := record(); again != nil {
		if _, _, err := again.Finish(third); !errors.Is(err, ErrKey) {
			t.Errorf("a recorded third message: %v, want ErrKey", err)
		}
	}
	again, _, err := Initiate(dialer, k)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := again.Finish(second, exampleDialer); !errors.Is(err, ErrKey) {
		t.Errorf("a recorded second message: %v, want ErrKey", err)
	}
}

var host = netip.MustParsePrefix("192.0.2.1/32")

// TestBudgetIsShared: one host takes at most half of a budget, and what it gives back is there again.
func TestBudgetIsShared(t *testing.T) {
	b := NewBudget(100)
	one, two, three := b.Share(host), b.Share(netip.MustParsePrefix("192.0.2.2/32")), b.Share(netip.MustParsePrefix("2001:db8::/64"))
	for _, step := range []struct {
		share Share
		take  int
		want  bool
	}{{one, 30, true}, {one, 21, false}, {one, 20, true}, {two, 50, true}, {two, 1, false}, {three, 1, false}} {
		if got := step.share.take(step.take); got != step.want {
			t.Errorf("%s takes %d: %t, want %t", step.share.host, step.take, got, step.want)
		}
	}
	two.Give(50)
	if !three.take(50) || one.take(1) {
		t.Error("what a host gave back is not there for others only")
	}
	three.Give(50)
	one.Give(50)
	if b.Left() != 100 || len(b.taken) != 0 {
		t.Errorf("%d bytes left, %d hosts", b.Left(), len(b.taken))
	}
}

// TestLongestMessage: a host's share of the budget of a node has room for a message of the greatest length.
func TestLongestMessage(t *testing.T) {
	for _, n := range []int{MaxMessage * 4 / 5, MaxMessage - 1, MaxMessage} {
		share := NewBudget(3 * MaxMessage).Share(host)
		var msg []byte
		for len(msg) < n {
			more := min(maxRecord-tagLen, n-len(msg))
			var err error
			if msg, err = share.grow(msg, more, n); err != nil {
				t.Fatalf("at %d of %d bytes: %v", len(msg), n, err)
			}
			msg = msg[:len(msg)+more]
		}
	}
}

// TestMessagesAreBounded: a message that is too long, or for which there is no room, is refused, and holds nothing.
func TestMessagesAreBounded(t *testing.T) {
	for _, tt := range []struct {
		name       string
		send, most int
		budget     int
		cut        int // bytes at the end that do not arrive
		want       error
	}{
		{"longer than it may be", 101, 100, 1000, 0, ErrMalformed},
		{"no room", 1000, 1000, 1999, 0, ErrBudget},
		{"no room for the rest", 200_000, 200_000, 360_000, 0, ErrBudget},
		{"cut in a record", 200_000, 200_000, 1 << 20, 1, io.ErrUnexpectedEOF},
		{"cut between records", 2 * (maxRecord - tagLen), 200_000, 1 << 20, messageHeader + tagLen + 2, io.EOF},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dialer, dialed := ends(t)
			_, _, there, here := handshake(t, dialer, dialed, derived(t, 'a', "weft"))
			var wire bytes.Buffer
			if err := there.WriteMessage(&wire, Memberlist, make([]byte, tt.send)); err != nil {
				t.Fatal(err)
			}
			budget := NewBudget(tt.budget)
			_, msg, err := here.ReadMessage(bytes.NewReader(wire.Bytes()[:wire.Len()-tt.cut]), tt.most, budget.Share(host))
			if !errors.Is(err, tt.want) || msg != nil || budget.Left() != tt.budget {
				t.Errorf("%v, want %v; %d of %d bytes left", err, tt.want, budget.Left(), tt.budget)
			}
		})
	}
}

// FuzzReadMessage: the plaintexts of records are as untrusted as what is outside, as members can be hostile.
func FuzzReadMessage(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 5, 'h', 'e'}, []byte("llo"))
	f.Add([]byte{1, 0, 0, 0, 5}, []byte{})
	f.Add([]byte{1, 255, 255, 255, 255}, []byte{1})
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, first, rest []byte) {
		var key [KeyLen]byte
		out, in := noise.UnsafeNewCipherState(suite, key, 0), noise.UnsafeNewCipherState(suite, key, 0)
		var wire bytes.Buffer
		for _, plain := range [][]byte{first, rest} {
			record, err := out.Encrypt(nil, nil, plain[:min(len(plain), maxRecord-tagLen)])
			if err != nil {
				t.Fatal(err)
			}
			wire.Write(append([]byte{byte(len(record) >> 8), byte(len(record))}, record...))
		}
		budget := NewBudget(1000)
		_, msg, err := (&Session{in: in}).ReadMessage(&wire, 500, budget.Share(host))
		if err == nil && !bytes.HasPrefix(append(first[messageHeader:], rest...), msg) {
			t.Errorf("%q is none of these bytes", msg)
		}
		if budget.Share(host).Give(cap(msg)); budget.Left() != 1000 {
			t.Errorf("%d bytes left of 1000, %v", budget.Left(), err)
		}
	})
}

func FuzzParseHello(f *testing.F) {
	f.Add(exampleDialer.Encode())
	f.Add(exampleDialed.Encode())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHello(b)
		if err != nil {
			return
		}
		again, err := ParseHello(h.Encode())
		if diff := cmp.Diff(h, again, addrs); diff != "" || err != nil {
			t.Errorf("%v: %s", err, diff)
		}
	})
}

// FuzzOpen: bytes inside a valid seal are as untrusted as those outside, as members can be hostile.
func FuzzOpen(f *testing.F) {
	k, err := Derive([KeyLen]byte{1}, "weft")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(k.Seal(Packet, Header{Counter: 1}, []byte("x")), []byte{})
	f.Add(k.Seal(Challenge, Header{}, Proof{}.Append(nil)), Proof{Instance: 3}.Append(nil))
	f.Add([]byte{byte(Answer)}, []byte{1})
	f.Fuzz(func(t *testing.T, packet, body []byte) {
		if _, _, opened, _, err := Open([]*Keys{k}, packet); err == nil && len(opened) > len(packet)-Overhead {
			t.Error("a body that is longer than the packet")
		}
		if p, err := ParseProof(body); err == nil && !bytes.Equal(p.Append(nil), body) {
			t.Error("a proof changes")
		}
	})
}

// FuzzHandshake: no bytes make the two ends of a handshake fail otherwise than with an error.
func FuzzHandshake(f *testing.F) {
	k, err := Derive([KeyLen]byte{1}, "weft")
	if err != nil {
		f.Fatal(err)
	}
	end := End{Private: [KeyLen]byte{1}, Public: [KeyLen]byte{2}}
	_, first, err := Initiate(end, k)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(first, []byte{})
	f.Add([]byte{Version}, make([]byte, MaxSecond))
	f.Fuzz(func(t *testing.T, first, message []byte) {
		if r, _, err := Respond(end, []*Keys{k}, first); err == nil {
			if _, err := r.Answer(Hello{}); err == nil {
				if _, _, err := r.Finish(message); err == nil {
					t.Error("a third message without the keys")
				}
			}
		}
		i, _, err := Initiate(end, k)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, _, err := i.Finish(message, Hello{}); err == nil {
			t.Error("a second message without the keys")
		}
	})
}
