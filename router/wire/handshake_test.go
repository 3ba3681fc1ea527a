package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

// pattern returns n bytes that count up from first.
func pattern(first byte, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = first + byte(i)
	}
	return b
}

// TestHandshakeLayout pins the bytes of all three messages.
func TestHandshakeLayout(t *testing.T) {
	initiation := Initiation{Sender: 0x0a0b0c, Noise: pattern(0, initiationNoiseLen)}.Append(nil)
	response := Response{Receiver: 0x010203, Sender: 0x0a0b0c, Noise: pattern(0, responseNoiseLen)}.Append(nil)
	cookie := Cookie{Receiver: 0x010203, Nonce: pattern(0, 24), Sealed: pattern(0x80, 32)}.Append(nil)
	for want, got := range map[string][]byte{
		"16000000" + "0000000000000000" + "000a0b0c" + hex.EncodeToString(pattern(0, 114)):                           initiation,
		"17010203" + "0000000000000000" + "000a0b0c" + hex.EncodeToString(pattern(0, 50)):                            response,
		"18010203" + "0000000000000000" + hex.EncodeToString(pattern(0, 24)) + hex.EncodeToString(pattern(0x80, 32)): cookie,
	} {
		if hex.EncodeToString(got) != want {
			t.Errorf("bytes\n got %x\nwant %s", got, want)
		}
	}
	if InitiationLen != 162 || ResponseLen != 82 || CookieLen != 68 {
		t.Errorf("lengths %d, %d, %d", InitiationLen, ResponseLen, CookieLen)
	}
	i, err := ParseInitiation(append(initiation, pattern(0xa0, 2*MACLen)...))
	if err != nil || i.Sender != 0x0a0b0c || !bytes.Equal(i.First, pattern(0xa0, 16)) || !bytes.Equal(i.Second, pattern(0xb0, 16)) {
		t.Errorf("%+v, %v", i, err)
	}
	r, err := ParseResponse(append(response, pattern(0xa0, MACLen)...))
	if err != nil || r.Receiver != 0x010203 || r.Sender != 0x0a0b0c || !bytes.Equal(r.First, pattern(0xa0, 16)) {
		t.Errorf("%+v, %v", r, err)
	}
	c, err := ParseCookie(cookie)
	if err != nil || c.Receiver != 0x010203 || !bytes.Equal(c.Nonce, pattern(0, 24)) || !bytes.Equal(c.Sealed, pattern(0x80, 32)) {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestHandshakeRefuses(t *testing.T) {
	withSender := func(index string, n int) []byte {
		b, err := hex.DecodeString(strings.Repeat("00", HeaderLen) + index + strings.Repeat("00", n-HeaderLen-4))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	initiation := func(b []byte) error { _, err := ParseInitiation(b); return err }
	response := func(b []byte) error { _, err := ParseResponse(b); return err }
	cookie := func(b []byte) error { _, err := ParseCookie(b); return err }
	for _, tt := range []struct {
		name  string
		parse func([]byte) error
		b     []byte
		want  error
	}{
		{"initiation", initiation, withSender("00000001", InitiationLen), nil},
		{"initiation cut", initiation, withSender("00000001", InitiationLen-1), ErrShort},
		{"initiation too long", initiation, withSender("00000001", InitiationLen+1), ErrHandshake},
		{"initiation without a sender", initiation, withSender("00000000", InitiationLen), ErrHandshake},
		{"initiation with an index of 25 bits", initiation, withSender("01000000", InitiationLen), ErrHandshake},
		{"response", response, withSender("00ffffff", ResponseLen), nil},
		{"response cut", response, withSender("00000001", ResponseLen-1), ErrShort},
		{"response too long", response, withSender("00000001", ResponseLen+1), ErrHandshake},
		{"response without a sender", response, withSender("00000000", ResponseLen), ErrHandshake},
		{"cookie", cookie, make([]byte, CookieLen), nil},
		{"cookie cut", cookie, make([]byte, CookieLen-1), ErrShort},
		{"cookie too long", cookie, make([]byte, CookieLen+1), ErrHandshake},
		{"nothing", cookie, nil, ErrShort},
	} {
		if err := tt.parse(tt.b); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

// FuzzParseHandshake: a parsed message is encoded to the same bytes.
func FuzzParseHandshake(f *testing.F) {
	f.Add(append(Initiation{Sender: 7, Noise: pattern(0, initiationNoiseLen)}.Append(nil), make([]byte, 2*MACLen)...))
	f.Add(append(Response{Receiver: 9, Sender: 7, Noise: pattern(0, responseNoiseLen)}.Append(nil), make([]byte, MACLen)...))
	f.Add(Cookie{Receiver: 9, Nonce: pattern(0, 24), Sealed: pattern(0, 32)}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, _, err := Parse(b)
		if err != nil || h.Counter != 0 {
			return
		}
		var again []byte
		switch h.Type {
		case TypeInitiation:
			m, err := ParseInitiation(b)
			if err != nil || h.Session != 0 {
				return
			}
			again = append(append(m.Append(nil), m.First...), m.Second...)
		case TypeResponse:
			m, err := ParseResponse(b)
			if err != nil {
				return
			}
			again = append(m.Append(nil), m.First...)
		case TypeCookie:
			m, err := ParseCookie(b)
			if err != nil {
				return
			}
			again = m.Append(nil)
		default:
			return
		}
		if !bytes.Equal(again, b) {
			t.Fatalf("%x is written again as %x", b, again)
		}
	})
}
