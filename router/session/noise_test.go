package session

import (
	"bytes"
	"encoding/hex"
	"testing"

	"github.com/flynn/noise"
	"golang.org/x/crypto/curve25519"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// vector is one of Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s as published (vectors.txt of flynn/noise, in the format of the
// Noise project's wiki). Keys and ephemeral keys are the same for all.
type vector struct {
	prologue              string
	payloads, ciphertexts [2]string
	transportText         [2]string
}

var vectors = []vector{
	{
		ciphertexts: [2]string{
			"358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd166254d06f15f78ad0914d9715147bb5a5004b27345a838bab4aa8bc5f144a" +
				"fc2cf4cca972105ba526e8c92b759e028200e766f827aa12a04ecbc0bdcd9e574e007945",
			"64b101b1d0be5a8704bd078f9895001fc03e8e9f9522f188dd128d9846d484668c46d966ca4fe339f9e47fd25f68de8a",
		},
		transportText: [2]string{
			"6013ea114b4c4884afb82bf029f72f924bd8a32c487a15a1cef4855ba234be",
			"8a2e7119635e41a35b7e64e0adac5483b66b1a9827895124ea07d58440b654",
		},
	},
	{
		prologue: "6e6f74736563726574",
		payloads: [2]string{"746573745f6d73675f30", "746573745f6d73675f31"},
		ciphertexts: [2]string{
			"358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd166254d06f15f78ad0914d9715147bb5a5004b27345a838bab4aa8bc5f144a" +
				"fc2cf4ccb88f9ea1ebd99e94b76e50af7eee0e596a3d77b86f9aa87dcfe61d972bc6f34d0e93751d1260fa6bf0fe",
			"64b101b1d0be5a8704bd078f9895001fc03e8e9f9522f188dd128d9846d48466168e6913e78d7a2b04b2b154c5149032d1c2584051bdcf04db1d",
		},
		transportText: [2]string{
			"6013ea114b4c4884afb82bf029f72f924bd8a32c487a15a1cef4855ba234be",
			"8a2e7119635e41a35b7e64e0adac5483b66b1a9827895124ea07d58440b654",
		},
	},
}

const (
	vectorInitiator  = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
	vectorResponder  = "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20"
	vectorEphemeralI = "202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f"
	vectorEphemeralR = "4142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f60"
	vectorSecret     = "2176657279736563726574766572797365637265747665727973656372657421"
	vectorText1      = "79656c6c6f777375626d6172696e65"
	vectorText2      = "7375626d6172696e6579656c6c6f77"
)

func vectorParty(t *testing.T, private, ephemeral, prologue string) party {
	public, err := curve25519.X25519(unhex(t, private), curve25519.Basepoint)
	if err != nil {
		t.Fatal(err)
	}
	return party{
		static:   noise.DHKey{Private: unhex(t, private), Public: public},
		prologue: unhex(t, prologue), random: bytes.NewReader(unhex(t, ephemeral)),
	}
}

func TestNoiseVectors(t *testing.T) {
	for i, v := range vectors {
		initiator := vectorParty(t, vectorInitiator, vectorEphemeralI, v.prologue)
		responder := vectorParty(t, vectorResponder, vectorEphemeralR, v.prologue)
		a, errA := initiator.newHandshake(responder.static.Public)
		b, errB := responder.newHandshake(nil)
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		if err := a.SetPresharedKey(unhex(t, vectorSecret)); err != nil {
			t.Fatal(err)
		}
		first, _, _, err := a.WriteMessage(nil, unhex(t, v.payloads[0]))
		if err != nil || hex.EncodeToString(first) != v.ciphertexts[0] {
			t.Fatalf("%d: first message\n got %x, %v\nwant %s", i, first, err, v.ciphertexts[0])
		}
		payload, _, _, err := b.ReadMessage(nil, first)
		if err != nil || hex.EncodeToString(payload) != v.payloads[0] || !bytes.Equal(b.PeerStatic(), initiator.static.Public) {
			t.Fatalf("%d: %x from %x, %v", i, payload, b.PeerStatic(), err)
		}
		if err := b.SetPresharedKey(unhex(t, vectorSecret)); err != nil {
			t.Fatal(err)
		}
		second, out, in, err := b.WriteMessage(nil, unhex(t, v.payloads[1]))
		if err != nil || hex.EncodeToString(second) != v.ciphertexts[1] {
			t.Fatalf("%d: second message\n got %x, %v\nwant %s", i, second, err, v.ciphertexts[1])
		}
		_, outA, inA, err := a.ReadMessage(nil, second)
		if err != nil || outA.UnsafeKey() != out.UnsafeKey() || inA.UnsafeKey() != in.UnsafeKey() {
			t.Fatalf("%d: the ends have other keys, %v", i, err)
		}
		// The keys of both directions are those of the vector's transport messages, which have nonce 0.
		for n, key := range [][KeyLen]byte{out.UnsafeKey(), in.UnsafeKey()} {
			aead, err := ChaCha20Poly1305.newAEAD(key, false)
			if err != nil {
				t.Fatal(err)
			}
			text := unhex(t, []string{vectorText1, vectorText2}[n])
			if got := aead.Seal(nil, make([]byte, 12), text, nil); hex.EncodeToString(got) != v.transportText[n] {
				t.Errorf("%d: direction %d seals as %x, want %s", i, n, got, v.transportText[n])
			}
		}
	}
}

// TestAEADVectors: test case 16 of McGrew and Viega, "The Galois/Counter Mode of Operation (GCM)", and RFC 8439,
// section 2.8.2.
func TestAEADVectors(t *testing.T) {
	for _, tt := range []struct {
		cipher                                Cipher
		key, nonce, text, additional, expects string
	}{
		{
			AES256GCM, "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308", "cafebabefacedbaddecaf888",
			"d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
			"feedfacedeadbeeffeedfacedeadbeefabaddad2",
			"522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662" +
				"76fc6ece0f4e1768cddf8853bb2d551b",
		},
		{
			ChaCha20Poly1305, "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f", "070000004041424344454647",
			hex.EncodeToString([]byte("Ladies and Gentlemen of the class of '99: If I could offer y" +
				"ou only one tip for the future, sunscreen would be it.")),
			"50515253c0c1c2c3c4c5c6c7",
			"d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36" +
				"92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc3ff4def08e4b7a9de576d26586cec64b6116" +
				"1ae10b594f09e26a7e902ecbd0600691",
		},
	} {
		for _, standardAES := range []bool{false, true} {
			aead, err := tt.cipher.newAEAD([KeyLen]byte(unhex(t, tt.key)), standardAES)
			if err != nil {
				t.Fatal(err)
			}
			sealed := aead.Seal(nil, unhex(t, tt.nonce), unhex(t, tt.text), unhex(t, tt.additional))
			if hex.EncodeToString(sealed) != tt.expects {
				t.Errorf("%s, standard library %v: %x, want %s", tt.cipher, standardAES, sealed, tt.expects)
			}
			if aead.NonceSize() != 12 || aead.Overhead() != 16 {
				t.Errorf("%s: nonce %d, overhead %d", tt.cipher, aead.NonceSize(), aead.Overhead())
			}
		}
	}
}
