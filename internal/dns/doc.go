// Package dns answers queries for the names of addresses on the overlay, as NAME.DOMAIN. The domain is a setting of
// each node; between nodes, names are without it.
//
// A Registry holds the names of all nodes: a replicated set of entries (node, name, address) of which each node changes
// only its own (docs/adr/0023-names.md). It has no goroutine; the mesh carries its messages. A Server answers from a
// Registry over UDP and TCP, and forwards all other queries to the resolvers of the host.
//
// The files by subject:
//
//   - names: name.go, entry.go, table.go
//   - the replicated set: registry.go, own.go, merge.go, codec.go, save.go
//   - the server: server.go, problem.go, endpoint.go, query.go, respond.go, answer.go, reverse.go, forward.go, resolvconf.go
//
// Lock order: Registry.changing, then Registry.mu. Only changing is held while Store.Save runs. Server.mu and
// resolvConf.mu are leaves.
package dns
