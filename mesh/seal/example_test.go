package seal

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"golang.org/x/crypto/curve25519"

	"weft/internal/docgen"
	"weft/internal/peer"
)

// exampleGossip is the gossip key of the first secret in the tests of internal/secret.
const exampleGossip = "b8bf2a674ff0086dffd97da8bdec7423eaa57d60644e698493615428dbea3a7f"

// TestExample performs one handshake and seals packets with fixed inputs, and compares the bytes with
// testdata/example.txt (go test -rewrite writes it anew), which docs/PROTOCOL.md quotes.
func TestExample(t *testing.T) {
	datadriven.RunTest(t, "testdata/example.txt", func(t *testing.T, d *datadriven.TestData) string {
		switch d.Cmd {
		case "keys":
			return exampleKeys(t)
		case "stream":
			return exampleStream(t)
		case "packets":
			return examplePackets(t)
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

// listing is names with bytes in hexadecimal, 32 a line.
type listing []byte

func (l *listing) add(name string, b []byte) {
	*l = append(*l, name+"\n"...)
	for line := range slices.Chunk(b, 32) {
		*l = append(*l, fmt.Sprintf("    %x\n", line)...)
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func exampleOf(t *testing.T) *Keys {
	t.Helper()
	k, err := Derive([KeyLen]byte(unhex(t, exampleGossip)), "weft")
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// exampleEnd returns an end with the private key first, first+1, …, and the ephemeral key ephemeral, ephemeral+1, ….
func exampleEnd(t *testing.T, first, ephemeral byte) End {
	t.Helper()
	e := End{Private: [KeyLen]byte(count(first)), Random: bytes.NewReader(count(ephemeral))}
	public, err := curve25519.X25519(e.Private[:], curve25519.Basepoint)
	if err != nil {
		t.Fatal(err)
	}
	e.Public = [KeyLen]byte(public)
	return e
}

func count(first byte) []byte {
	b := make([]byte, KeyLen)
	for i := range b {
		b[i] = first + byte(i)
	}
	return b
}

var (
	exampleDialed = Hello{
		Instance: 0x0102030405060708, Started: time.Unix(1_700_000_000, 5), Counter: 41, Uptime: 90 * time.Second,
		Addr: netip.MustParseAddrPort("192.0.2.2:6783"),
	}
	exampleDialer = Hello{
		Instance: 0x1112131415161718, Started: time.Unix(1_700_000_100, 0), Counter: 7, Uptime: 1500 * time.Millisecond,
		Addr: netip.MustParseAddrPort("[2001:db8::1]:6783"), Credentials: []byte("shown"),
	}
)

func exampleKeys(t *testing.T) string {
	k := exampleOf(t)
	var out listing
	out.add("gossip key", unhex(t, exampleGossip))
	out.add("prologue", k.context)
	out.add("stream key", k.stream[:])
	return string(out)
}

func exampleStream(t *testing.T) string {
	k := exampleOf(t)
	dialer, dialed := exampleEnd(t, 0x00, 0x40), exampleEnd(t, 0x20, 0x60)
	i, first, err := Initiate(dialer, k)
	if err != nil {
		t.Fatal(err)
	}
	r, _, err := Respond(dialed, []*Keys{k}, first)
	if err != nil {
		t.Fatal(err)
	}
	second, err := r.Answer(exampleDialed)
	if err != nil {
		t.Fatal(err)
	}
	third, _, there, err := i.Finish(second, exampleDialer)
	if err != nil {
		t.Fatal(err)
	}
	_, here, err := r.Finish(third)
	if err != nil {
		t.Fatal(err)
	}
	var status, message bytes.Buffer
	if err := here.WriteMessage(&status, Status, []byte{byte(Accepted)}); err != nil {
		t.Fatal(err)
	}
	if err := there.WriteMessage(&message, Memberlist, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	var out listing
	out.add("static public key of the dialer", dialer.Public[:])
	out.add("static public key of the dialed node", dialed.Public[:])
	out.add("hello of the dialer", exampleDialer.Encode())
	out.add("hello of the dialed node", exampleDialed.Encode())
	out.add("first message", first)
	out.add("second message, without refusal and length", second)
	out.add("third message, without length", third)
	out.add("status: accepted", status.Bytes())
	out.add("a message for memberlist: hello", message.Bytes())
	return string(out)
}

func examplePackets(t *testing.T) string {
	k := exampleOf(t)
	from, to := peer.ID{1, 2, 3, 4, 5, 6, 7, 8}, peer.ID{8, 7, 6, 5, 4, 3, 2, 1}
	h := Header{Sender: from, Instance: 0x1112131415161718, Counter: 8, Uptime: 2 * time.Second, Receiver: to}
	back := Header{Sender: to, Instance: 0x0102030405060708, Counter: 42, Uptime: 91 * time.Second, Receiver: from}
	var nonce [nonceLen]byte
	copy(nonce[:], count(0xa0))
	proof := Proof{Instance: h.Instance, Nonce: Nonce(count(0xc0))}
	var out listing
	out.add("packet with the body hello", k.sealWith(nonce, Packet, h, []byte("hello")))
	out.add("challenge", k.sealWith(nonce, Challenge, back, proof.Append(nil)))
	h.Counter, proof.Instance = 9, back.Instance
	out.add("answer", k.sealWith(nonce, Answer, h, proof.Append(nil)))
	return string(out)
}
