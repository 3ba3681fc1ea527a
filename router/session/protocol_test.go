package session

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"weft/internal/docgen"
	"weft/internal/peer"
	"weft/internal/ratelimit"
	"weft/router/wire"
)

// Inputs of the example, beside the keys and ephemeral keys of the Noise project's vectors (noise_test.go). The secret
// is the first one in the tests of internal/secret.
const (
	exampleSecret      = "86d532c19b99c91c914539497411b0bceb78067a27d0cba0b20a0aa9a67f38fd"
	exampleFingerprint = 0x0fc8cd66
	exampleFrame       = "020000000002" + "020000000001" + "88b6" + "68656c6c6f2c2077656674"
	exampleAgain       = "6162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f80" // a second ephemeral key
	exampleNonce       = "a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7"
)

// Addresses of the two nodes of the example.
var (
	exampleInitiator = netip.MustParseAddrPort("192.0.2.1:6784")
	exampleResponder = netip.MustParseAddrPort("192.0.2.2:6784")
)

// TestExample runs one handshake with fixed keys, random bytes and time, and compares all datagrams with
// testdata/example.txt (go test -rewrite writes it anew), which docs/PROTOCOL.md quotes.
//
//	handshake cipher=C    a handshake, a keepalive each way, a frame
//	cookie                an initiation to a node that is busy, and the one after it
func TestExample(t *testing.T) {
	datadriven.RunTest(t, "testdata/example.txt", func(t *testing.T, d *datadriven.TestData) string {
		switch d.Cmd {
		case "handshake":
			var name string
			d.ScanArgs(t, "cipher", &name)
			return exampleHandshake(t, name)
		case "cookie":
			return exampleCookie(t)
		default:
			d.Fatalf(t, "unknown command %s", d.Cmd)
			return ""
		}
	})
}

// TestExampleIsQuoted: the specification quotes the bytes that the code sends.
func TestExampleIsQuoted(t *testing.T) {
	golden, err := os.ReadFile("testdata/example.txt")
	if err != nil {
		t.Fatal(err)
	}
	document, err := os.ReadFile(filepath.FromSlash("../../docs/PROTOCOL.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range docgen.Unquoted(string(golden), string(document)) {
		t.Errorf("docs/PROTOCOL.md does not have the line\n%s", line)
	}
}

func exampleHandshake(t *testing.T, cipher string) string {
	nodes, peers := exampleNodes(t, cipher,
		"0a0b0c00"+vectorEphemeralI, strings.Repeat("00", 2*KeyLen)+"0d0e0f00"+vectorEphemeralR)
	var out listing
	out.add("initiator's static public key", peers[0].Public[:])
	out.add("initiator's ID", peers[0].ID[:])
	out.add("responder's static public key", peers[1].Public[:])
	out.add("responder's ID", peers[1].ID[:])
	out.add("prologue", prologue("weft", peers[1].ID))
	secret := [KeyLen]byte(unhex(t, exampleSecret))
	for i, name := range []string{"initiator", "responder"} {
		key := receiverKey(labelMAC, peers[i].Public, secret)
		out.add("key of first MACs to the "+name, key[:])
	}

	nodes[0].RequestSession(peers[1].ID, epoch)
	initiation := only(t, nodes[0])
	deliver(t, nodes[1], initiation, exampleInitiator, epoch)
	response := only(t, nodes[1])
	deliver(t, nodes[0], response, exampleResponder, epoch)
	there := only(t, nodes[0])
	deliver(t, nodes[1], bytes.Clone(there), exampleInitiator, epoch)
	back := only(t, nodes[1])
	deliver(t, nodes[0], bytes.Clone(back), exampleResponder, epoch)

	a, b := nodes[0].Info(peers[1].ID).Session, nodes[1].Info(peers[0].ID).Session
	if a == nil || b == nil || !a.confirmed.Load() || !b.confirmed.Load() {
		t.Fatal("no session")
	}
	out.exampleKeys(t, initiation, response, a)
	frame := sealed(t, a, wire.TypeFrame, string(make([]byte, wire.MetaLen))+string(unhex(t, exampleFrame)))
	body, _, err := b.Open(parse(t, frame), bytes.Clone(frame))
	if err != nil || hex.EncodeToString(body[wire.MetaLen:]) != exampleFrame {
		t.Fatalf("opened as %x, %v", body, err)
	}
	out.add("Initiation", initiation)
	out.add("Response", response)
	out.add("Keepalive to the responder", there)
	out.add("Keepalive to the initiator", back)
	out.add("Frame to the responder", frame)
	return out.String()
}

// exampleKeys adds the payloads of the Noise messages of two datagrams and the resulting keys, computed a second time
// without a Node.
func (l *listing) exampleKeys(t *testing.T, initiation, response []byte, s *Session) {
	t.Helper()
	m, errI := wire.ParseInitiation(initiation)
	r, errR := wire.ParseResponse(response)
	responder := vectorParty(t, vectorResponder, vectorEphemeralR, "")
	responder.prologue = prologue("weft", s.peer)
	state, err := responder.newHandshake(nil)
	if errI != nil || errR != nil || err != nil {
		t.Fatal(errI, errR, err)
	}
	said, _, _, err := state.ReadMessage(nil, m.Noise)
	if err != nil {
		t.Fatal(err)
	}
	answer := responsePayload{cipher: s.cipher}.encode()
	if err := state.SetPresharedKey(unhex(t, exampleSecret)); err != nil {
		t.Fatal(err)
	}
	again, toResponder, toInitiator, err := state.WriteMessage(nil, answer)
	if err != nil || !bytes.Equal(again, r.Noise) {
		t.Fatalf("the response is %x, %v", again, err)
	}
	l.add("payload of the Initiation", said)
	l.add("payload of the Response", answer)
	l.add("handshake hash", state.ChannelBinding())
	for i, name := range []string{"initiator to responder", "responder to initiator"} {
		half := toResponder
		if i == 1 {
			half = toInitiator
		}
		d, err := derive(half, s.cipher)
		if err != nil || d.from != []uint64{s.sealFrom, s.openFrom}[i] {
			t.Fatal("another counter", err)
		}
		chained := half.UnsafeKey()
		l.add(name+": key of Split", chained[:])
		l.add(name+": data key", d.key[:])
		*l = append(*l, fmt.Sprintf("%s: first counter\n    %016x\n", name, d.from)...)
	}
}

func exampleCookie(t *testing.T) string {
	nodes, peers := exampleNodes(t, AES256GCM.String(),
		"0a0b0c00"+vectorEphemeralI+"1a1b1c00"+exampleAgain, strings.Repeat("00", 2*KeyLen)+exampleNonce)
	nodes[1].limiter.free = ratelimit.New(0, 0)
	nodes[0].RequestSession(peers[1].ID, epoch)
	if err := nodes[1].Receive(only(t, nodes[0]), exampleInitiator, epoch); err == nil {
		t.Fatal("it accepts the initiation")
	}
	cookie := only(t, nodes[1])
	deliver(t, nodes[0], cookie, exampleResponder, epoch)
	again := only(t, nodes[0])
	if !nodes[1].cookies.valid(exampleInitiator, again) {
		t.Fatal("the cookie is not valid")
	}
	var out listing
	key := receiverKey(labelCookie, peers[1].Public, [KeyLen]byte(unhex(t, exampleSecret)))
	out.add("key of cookies from the responder", key[:])
	r := nodes[0].remotes[peers[1].ID]
	out.add("cookie", r.cookie[:])
	out.add("Cookie", cookie)
	out.add("Initiation with it", again)
	return out.String()
}

// exampleNodes returns the initiator and the responder, which are peers of each other. Their random bytes are 32 that
// do not appear in any datagram, and then those given.
func exampleNodes(t *testing.T, cipher string, random ...string) (nodes []*Node, peers []Peer) {
	t.Helper()
	only := slices.IndexFunc([]Cipher{AES256GCM, ChaCha20Poly1305}, func(c Cipher) bool { return c.String() == cipher })
	for i, private := range []string{vectorInitiator, vectorResponder} {
		n, err := NewNode(Config{
			Private: [KeyLen]byte(unhex(t, private)), Cluster: "weft", Offer: NewOffer(Cipher(only+1), true),
			Secrets: []Secret{{Key: [KeyLen]byte(unhex(t, exampleSecret)), Fingerprint: exampleFingerprint}},
			Random:  bytes.NewReader(unhex(t, strings.Repeat("00", 32)+random[i])),
		})
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, n)
		peers = append(peers, Peer{
			ID: peer.FromPublicKey(n.public), Public: n.public, Addr: []netip.AddrPort{exampleInitiator, exampleResponder}[i],
		})
	}
	for _, n := range nodes {
		n.SetPeers(peers, epoch)
	}
	return nodes, peers
}

// only returns the single datagram that a node sends.
func only(t *testing.T, n *Node) []byte {
	t.Helper()
	messages, _ := n.Drain()
	if len(messages) != 1 {
		t.Fatalf("%d messages", len(messages))
	}
	return messages[0].Datagram
}

// listing is names with bytes in hexadecimal, 32 a line.
type listing []byte

func (l *listing) add(name string, b []byte) {
	*l = append(*l, name+"\n"...)
	for line := range slices.Chunk(b, 32) {
		*l = append(*l, fmt.Sprintf("    %x\n", line)...)
	}
}

func (l listing) String() string { return string(l) }
