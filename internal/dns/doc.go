// Package dns names what is attached to the overlay, tells the names to all nodes, and answers for them as
// NAME.weft.local.
//
// A Registry holds the names of all nodes: a replicated set of entries (node, name, address) of which each node changes
// only its own. It is pure but for a lock and has no goroutine; the mesh carries its messages. A Server answers from it
// over UDP and TCP, and asks the host's resolvers for everything else.
package dns
