package identity

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"weft/internal/docgen"
	"weft/internal/peer"
)

// Inputs of the example: the CA has the seed of the first test vector of RFC 8032, section 7.1, the node the key of the
// initiator in chapter 10 of docs/PROTOCOL.md.
const (
	exampleSeed   = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
	exampleNode   = "8f40c5adb68f25624ae5b214ea767a6ec94d829d3d7b5e1ad1ba6f3e2138285f"
	exampleOther  = "07a37cbc142093c8b755dc1b10e86cb426374ad16aa853ed0bdfc0b2b86d1c7c"
	exampleTime   = 1_700_000_000
	exampleSecond = exampleTime + 3600
)

func exampleCA() CA { return caOf(unhex(exampleSeed)) }

func exampleTerms() Terms {
	return Terms{
		NotBefore: time.Unix(exampleTime, 0), NotAfter: time.Unix(exampleTime, 0).Add(90 * 24 * time.Hour), Name: "host1",
		Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/64")},
	}
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// wrapped writes bytes as lines of 32.
func wrapped(b []byte) string {
	var lines strings.Builder
	for part := range slices.Chunk(b, 32) {
		fmt.Fprintf(&lines, "    %x\n", part)
	}
	return lines.String()
}

// TestExample makes the bytes of the example, and compares them with testdata/example.txt (go test -rewrite writes it anew), which
// docs/PROTOCOL.md quotes.
func TestExample(t *testing.T) {
	datadriven.RunTest(t, "testdata/example.txt", func(t *testing.T, d *datadriven.TestData) string {
		var out strings.Builder
		show := func(what string, b []byte) { fmt.Fprintf(&out, "%s\n%s", what, wrapped(b)) }
		switch ca := exampleCA(); d.Cmd {
		case "ca":
			key := ca.Key()
			gossip, session := key.GossipKey(), key.SessionKey()
			show("public key", key[:])
			show("gossip key", gossip[:])
			show("session key", session[:])
			fmt.Fprintf(&out, "fingerprint\n    %08x\nline\n    %s\n", key.Fingerprint(), key)
		case "certificate":
			public := [peer.KeySize]byte(unhex(exampleNode))
			c, err := ca.Sign(public, exampleTerms())
			if err != nil {
				t.Fatal(err)
			}
			show("signed", c.signed(public))
			show("certificate", c.Encode())
		case "revocations":
			list, err := ca.SignRevocations(7, time.Unix(exampleSecond, 0), []Revocation{
				{peer.FromPublicKey([peer.KeySize]byte(unhex(exampleNode))), time.Unix(exampleSecond, 0)},
				{peer.FromPublicKey([peer.KeySize]byte(unhex(exampleOther))), time.Unix(exampleTime, 0)},
			})
			if err != nil {
				t.Fatal(err)
			}
			show("list", list.Encode())
		default:
			d.Fatalf(t, "unknown command %s", d.Cmd)
		}
		return out.String()
	})
}

// TestExampleIsQuoted: the specification quotes the bytes that the code makes.
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
