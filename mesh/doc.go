// Package mesh finds the nodes of a weft network, watches them, and carries the gossip of the other engines.
//
// It stands on hashicorp/memberlist: SWIM membership with push/pull of full state, on one UDP and TCP port. What the
// package adds is identity (a key for each node), targets that are dialled for ever, immutable snapshots of the
// membership for the router, and channels for gossip.
package mesh
