// Package mesh finds the nodes of a weft network, tracks which of them are alive, and carries the gossip of the other
// engines.
//
// It builds on hashicorp/memberlist: SWIM membership with push/pull of full state, on one UDP and TCP port. The package
// adds identity (one key pair a node), targets that are dialed without limit, immutable snapshots of the membership for
// the router, channels for gossip, and a tunnel for nodes that cannot be dialed.
//
// The files by subject:
//
//   - membership: roster.go, places.go, member.go, identity.go, conflict.go, clusterid.go,
//     credentials.go
//   - joining: dial.go, rejoin.go, keys.go, keymismatch.go
//   - gossip: gossip.go, unicast.go, tunnel.go, links.go
//   - below memberlist: transport.go, packets.go, stream.go, serve.go
//   - the engine: config.go, mesh.go, watch.go
//
// Lock order: keyring.mu, then roster.mu or linkStates.mu. Every other mutex is a leaf: no lock of the
// package is taken while it is held. memberlist calls the roster with its own lock held, so nothing here calls memberlist
// with roster.mu held. Only the address book holds a lock over I/O, and no reader needs that one.
package mesh
