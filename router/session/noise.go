package session

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/flynn/noise"

	"weft/internal/peer"
)

// suite is the cipher suite of the handshake, whichever cipher seals the frames: Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s
// (The Noise Protocol Framework, revision 34), as in WireGuard.
var suite = noise.NewCipherSuite(noise.DH25519, noise.CipherChaChaPoly, noise.HashBLAKE2s)

// party is the input of one end to a handshake.
type party struct {
	static   noise.DHKey
	prologue []byte
	random   io.Reader
}

// prologue returns the Noise prologue: the values that must be equal at both ends and are not sent.
func prologue(cluster string, responder peer.ID) []byte {
	b := fmt.Appendf(nil, "weft session %d\x00%s\x00", Version, cluster)
	return append(b, responder[:]...)
}

// newHandshake returns the state of a handshake. If public is not nil, this end is the initiator and public is the
// static key of the responder.
func (p party) newHandshake(public []byte) (*noise.HandshakeState, error) {
	state, err := noise.NewHandshakeState(noise.Config{
		CipherSuite: suite, Random: p.random, Pattern: noise.HandshakeIK, Initiator: public != nil, Prologue: p.prologue,
		PresharedKeyPlacement: 2, // the key is set as soon as the secret is known
		StaticKeypair:         p.static, PeerStatic: public,
	})
	if err != nil {
		return nil, fmt.Errorf("session: %w", err)
	}
	return state, nil
}

// direction is the keying material of the datagrams of one direction.
type direction struct {
	key  [KeyLen]byte
	from uint64 // the first counter
}

// derive returns the keying material of a direction from the key that the handshake made for it.
func derive(state *noise.CipherState, c Cipher) (d direction, err error) {
	secret := state.UnsafeKey()
	key, err := hkdf.Expand(sha256.New, secret[:], "weft 1 data "+c.String(), KeyLen)
	if err != nil {
		return direction{}, fmt.Errorf("session: %w", err)
	}
	from, err := hkdf.Expand(sha256.New, secret[:], "weft 1 counter", 8)
	if err != nil {
		return direction{}, fmt.Errorf("session: %w", err)
	}
	return direction{key: [KeyLen]byte(key), from: binary.BigEndian.Uint64(from) &^ (maxCounters - 1)}, nil
}

// setKeys sets the keys of s from a finished handshake: toResponder and toInitiator are its two directions.
// standardAES is that of Config.
func (s *Session) setKeys(toResponder, toInitiator *noise.CipherState, standardAES bool) error {
	out, in := toInitiator, toResponder
	if s.initiator {
		out, in = in, out
	}
	sealing, err := derive(out, s.cipher)
	if err != nil {
		return err
	}
	opening, err := derive(in, s.cipher)
	if err != nil {
		return err
	}
	s.sealFrom, s.openFrom = sealing.from, opening.from
	if s.seal, err = s.cipher.newAEAD(sealing.key, standardAES); err != nil {
		return err
	}
	s.open, err = s.cipher.newAEAD(opening.key, standardAES)
	return err
}
