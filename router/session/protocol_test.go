package session

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"weft/router/wire"
)

// counting is a source of bytes that counts up, and notes what was read.
type counting struct {
	next byte
	read []string
}

// Read implements io.Reader.
func (c *counting) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = c.next
		c.next++
	}
	c.read = append(c.read, fmt.Sprintf("%x", b))
	return len(b), nil
}

// TestExample holds the worked example of docs/PROTOCOL.md: another implementation has to make the same bytes.
func TestExample(t *testing.T) {
	datadriven.RunTest(t, "testdata/example.txt", func(t *testing.T, _ *datadriven.TestData) string { return example(t) })
}

func example(t *testing.T) string {
	var b strings.Builder
	say := func(what string, value any) { fmt.Fprintf(&b, "%s: %x\n", what, value) }
	now := time.Unix(1_700_000_000, 0)
	names := []string{"initiator", "responder"}
	randoms := []*counting{{next: 0x10}, {next: 0x80}}
	secret := Secret{Fingerprint: 1}
	for i := range secret.Key {
		secret.Key[i] = byte(0xa0 + i)
	}
	say("session key of the secret", secret.Key)
	var nodes []*Node
	var peers []Peer
	for i := range names {
		private, p := keyOf(t, i)
		n, err := NewNode(Config{
			Private: private, Cluster: "weft", Secrets: []Secret{secret}, Offer: NewOffer(0, true), Random: randoms[i],
		})
		if err != nil {
			t.Fatal(err)
		}
		randoms[i].read = nil // of what is no part of the protocol
		say(names[i]+"'s private key", private)
		say(names[i]+"'s ID", p.ID[:])
		nodes, peers = append(nodes, n), append(peers, p)
	}
	for i, n := range nodes {
		n.SetPeers(peers[1-i:2-i], now)
	}
	nodes[0].Want(peers[1].ID, now)
	initiation, _ := nodes[0].Take()
	deliver(t, nodes[1], initiation[0].Datagram, peers[0].Addr, now)
	response, _ := nodes[1].Take()
	deliver(t, nodes[0], response[0].Datagram, peers[1].Addr, now)
	keepalive, changes := nodes[0].Take()
	say("time of the initiation", now.UnixNano())
	for i, name := range names {
		fmt.Fprintf(&b, "%s's random bytes, of which the last two are index and ephemeral key: %s\n", name, strings.Join(randoms[i].read, " "))
	}
	say("initiation", initiation[0].Datagram)
	say("response", response[0].Datagram)
	s := changes[0].Session
	fmt.Fprintf(&b, "cipher: %s\n", s.Cipher())
	say("base of the counters to the responder", s.sealFrom)
	say("base of the counters to the initiator", s.openFrom)
	say("keepalive", keepalive[0].Datagram)
	counter, _ := s.Reserve(1)
	say("frame with the body \"metadataframe\"", s.Seal(nil, wire.TypeFrame, counter, []byte("metadataframe")))
	return b.String()
}
