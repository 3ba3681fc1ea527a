package mesh

import "weft/internal/peer"

// Credentials decides which of the nodes that have a secret in common with this one may exchange gossip with it, by what
// they show in the handshake of each stream. Without credentials every node with a common secret may. The methods are
// called from several goroutines, and must not block.
//
// Packets carry no credentials: they prove that their sender has the secret, and that the instance that they name is
// there. See docs/PROTOCOL.md, chapter 3.
type Credentials interface {
	// Show returns what this node shows, at most seal.MaxCredentials bytes. The mesh does not modify it.
	Show() []byte
	// Check returns why a node is not admitted, nil if it is. The node has proven that it has the private key of public,
	// and a secret with the given fingerprint (0: this network has none), and it has shown shown. Check does not keep shown.
	Check(public [peer.KeySize]byte, shown []byte, fingerprint uint32) error
}
