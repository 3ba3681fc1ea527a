// Package session makes, renews and ends the sessions between this node and its peers. A session is a pair of keys that
// seal the datagrams between two nodes. docs/PROTOCOL.md is the specification.
//
// A Node is this node's side of all its sessions: it receives handshake messages, and returns the messages to send and
// the Session that seals for each peer from now on. A Session is what the datapath uses; it never calls the Node.
//
//   - node.go: the Node and its inputs; remote.go: the state of one peer
//   - initiate.go and respond.go: the two sides of a handshake; renew.go: its timers (retries, rekeying, expiry)
//   - noise.go: the cryptography of the handshake; payload.go: the sealed parts of its messages
//   - ratelimit.go, mac.go and cookie_checker.go: bounds on the cost of unauthenticated senders
//   - cipher.go: the choice of a cipher; session.go: sealing and opening; table.go: sessions by index
//
// Everything is pure: no I/O, no goroutine, and time is an argument.
package session
