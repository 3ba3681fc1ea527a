package seal

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/flynn/noise"

	"weft/internal/bytesreader"
)

// suite is the cipher suite of the handshake, Noise_XXpsk0_25519_ChaChaPoly_BLAKE2s (The Noise Protocol Framework,
// revision 34).
var suite = noise.NewCipherSuite(noise.DH25519, noise.CipherChaChaPoly, noise.HashBLAKE2s)

// MaxCredentials is the length in bytes of the longest credentials.
const MaxCredentials = 2048

// Lengths of the messages of a handshake.
const (
	FirstLen  = 1 + KeyLen + tagLen // version, ephemeral key, tag
	MaxSecond = KeyLen + KeyLen + tagLen + maxHello + tagLen
	MaxThird  = KeyLen + tagLen + maxHello + tagLen
)

// Hello is what each end of a stream states about its process, proven by the handshake.
//
//	 0          8         16        24       32     34        50  52
//	+----------+---------+---------+--------+------+---------+---+-------------+
//	| instance | started | counter | uptime | port | address | n | credentials |
//	| 8        | 8       | 8       | 8      | 2    | 16      | 2 | n           |
//	+----------+---------+---------+--------+------+---------+---+-------------+
//
// Numbers are big endian. An IPv4 address is mapped to IPv6. Further bytes are ignored: room for later formats.
type Hello struct {
	Instance    uint64
	Started     time.Time      // by the wall clock, only to order processes with one key
	Counter     uint64         // the highest counter of its packets so far
	Uptime      time.Duration  // in whole milliseconds, by its monotonic clock
	Addr        netip.AddrPort // gossip address
	Credentials []byte         // at most MaxCredentials
}

const (
	helloFixed = 4*8 + 2 + 16 + 2
	maxHello   = helloFixed + MaxCredentials
)

// Encode returns the wire form of h.
func (h Hello) Encode() []byte {
	b := binary.BigEndian.AppendUint64(nil, h.Instance)
	b = binary.BigEndian.AppendUint64(b, uint64(h.Started.UnixNano()))
	b = binary.BigEndian.AppendUint64(b, h.Counter)
	b = binary.BigEndian.AppendUint64(b, uint64(h.Uptime.Milliseconds()))
	b = binary.BigEndian.AppendUint16(b, h.Addr.Port())
	addr := h.Addr.Addr().As16()
	b = append(b, addr[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(h.Credentials)))
	return append(b, h.Credentials...)
}

// ParseHello parses the wire form. Errors wrap ErrMalformed.
func ParseHello(b []byte) (Hello, error) {
	if len(b) < helloFixed {
		return Hello{}, fmt.Errorf("%w: a hello of %d bytes", ErrMalformed, len(b))
	}
	uptime, err := parseUptime(b[24:])
	if err != nil {
		return Hello{}, err
	}
	r := bytesreader.Reader{B: b[helloFixed:]}
	credentials := r.Bytes(int(binary.BigEndian.Uint16(b[50:])))
	if r.Short || len(credentials) > MaxCredentials {
		return Hello{}, fmt.Errorf("%w: credentials cut short or too long", ErrMalformed)
	}
	return Hello{
		Instance: binary.BigEndian.Uint64(b), Started: time.Unix(0, int64(binary.BigEndian.Uint64(b[8:]))),
		Counter: binary.BigEndian.Uint64(b[16:]), Uptime: uptime,
		Addr:        netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[34:])).Unmap(), binary.BigEndian.Uint16(b[32:])),
		Credentials: append([]byte(nil), credentials...),
	}, nil
}

// Remote is the other end of a stream, as the handshake has proven it.
type Remote struct {
	Public [KeyLen]byte // static key of its node
	Hello
}

// End is one node in handshakes.
type End struct {
	Private, Public [KeyLen]byte // static key pair, X25519
	Random          io.Reader    // nil: the system's
}

func (e End) state(k *Keys, initiator bool) (*noise.HandshakeState, error) {
	state, err := noise.NewHandshakeState(noise.Config{
		CipherSuite: suite, Random: e.Random, Pattern: noise.HandshakeXX, Initiator: initiator, Prologue: k.context,
		PresharedKey: k.stream[:], PresharedKeyPlacement: 0,
		StaticKeypair: noise.DHKey{Private: e.Private[:], Public: e.Public[:]},
	})
	if err != nil {
		return nil, fmt.Errorf("seal: handshake: %w", err)
	}
	return state, nil
}

// Initiator is the handshake of the end that dials: Initiate, then Finish.
type Initiator struct{ state *noise.HandshakeState }

// Initiate begins a handshake under k, and returns its first message, of FirstLen bytes.
func Initiate(e End, k *Keys) (*Initiator, []byte, error) {
	state, err := e.state(k, true)
	if err != nil {
		return nil, nil, err
	}
	first, _, _, err := state.WriteMessage([]byte{Version}, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("seal: handshake: %w", err)
	}
	return &Initiator{state}, first, nil
}

// Finish reads the second message, and returns the third one, which states hello. The remote end and its hello are
// proven, and are of now. Errors wrap ErrKey or ErrMalformed where the second message is the reason.
func (i *Initiator) Finish(second []byte, hello Hello) (third []byte, r Remote, s *Session, err error) {
	said, _, _, err := i.state.ReadMessage(nil, second)
	if err != nil {
		return nil, Remote{}, nil, fmt.Errorf("%w: second message: %w", ErrKey, err)
	}
	if r, err = remoteOf(i.state, said); err != nil {
		return nil, Remote{}, nil, err
	}
	third, out, in, err := i.state.WriteMessage(nil, hello.Encode())
	if err != nil {
		return nil, Remote{}, nil, fmt.Errorf("seal: handshake: %w", err)
	}
	return third, r, &Session{out: out, in: in}, nil
}

// Responder is the handshake of the end that was dialed: Respond, then Answer, then Finish.
type Responder struct{ state *noise.HandshakeState }

// Respond reads the first message, of FirstLen bytes, with the first of the keys that fits, and returns which one that
// is. Each key costs one AEAD, and no Diffie-Hellman. Errors wrap ErrVersion, ErrMalformed or ErrKey.
func Respond(e End, keys []*Keys, first []byte) (r *Responder, key int, err error) {
	if len(first) == 0 || first[0] != Version {
		return nil, 0, ErrVersion
	}
	if len(first) != FirstLen {
		return nil, 0, fmt.Errorf("%w: a first message of %d bytes", ErrMalformed, len(first))
	}
	for i, k := range keys {
		state, err := e.state(k, false)
		if err != nil {
			return nil, 0, err
		}
		if _, _, _, err := state.ReadMessage(nil, first[1:]); err == nil {
			return &Responder{state}, i, nil
		}
	}
	return nil, 0, ErrKey
}

// Answer returns the second message, which states hello.
func (r *Responder) Answer(hello Hello) (second []byte, err error) {
	if second, _, _, err = r.state.WriteMessage(nil, hello.Encode()); err != nil {
		return nil, fmt.Errorf("seal: handshake: %w", err)
	}
	return second, nil
}

// Finish reads the third message. The remote end and its hello are proven, and are of now. Errors wrap ErrKey or
// ErrMalformed.
func (r *Responder) Finish(third []byte) (Remote, *Session, error) {
	said, in, out, err := r.state.ReadMessage(nil, third)
	if err != nil {
		return Remote{}, nil, fmt.Errorf("%w: third message: %w", ErrKey, err)
	}
	remote, err := remoteOf(r.state, said)
	if err != nil {
		return Remote{}, nil, err
	}
	return remote, &Session{out: out, in: in}, nil
}

// remoteOf returns the remote end of a handshake that has read its static key and its hello.
func remoteOf(state *noise.HandshakeState, said []byte) (Remote, error) {
	hello, err := ParseHello(said)
	if err != nil {
		return Remote{}, err
	}
	static := state.PeerStatic()
	if len(static) != KeyLen {
		return Remote{}, fmt.Errorf("%w: static key", ErrMalformed)
	}
	return Remote{Public: [KeyLen]byte(static), Hello: hello}, nil
}
