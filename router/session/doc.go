// Package session holds what two nodes have agreed on to talk to each other: the keys that seal their datagrams, and how
// these are made, renewed and given up. docs/PROTOCOL.md is the specification.
//
// A Node is one node's side of it with all others: it takes messages of handshakes, and says which are to be sent and
// which Session seals for whom from now on. A Session is one pair of keys; it is what the datapath uses, without a look
// at the Node.
//
// File by file: node.go is the Node and what it is told, remote.go what it knows of one other node, initiate.go and
// respond.go the two ends of a handshake, renew.go its clockwork: retries, rekeying, expiry. noise.go is the handshake's
// cryptography and payload.go what it says, gate.go, mac.go and cookie.go keep strangers from costing anything, cipher.go
// chooses what seals, session.go seals and opens, and table.go finds a session by its index.
//
// Everything is pure: no I/O, no goroutine, and time comes as an argument.
package session
