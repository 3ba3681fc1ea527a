// Package hoststate compares the network of this host as weft wants it with the network as it is. The result is a list of actions
// that make them equal. The daemon applies them, and "weft doctor" prints them.
//
//	desired.go   what weft wants: bridge, tunnel ports, pod ports, addresses, settings
//	settings.go  settings of the kernel
//	observed.go  what there is
//	diff.go      the comparison
//	action.go    the actions
//	pods.go      pod ports as they were when they were complete, which they are restored to
//	pace.go      when a repair that another program undoes may be repeated
//
// Package live (internal/hoststate/live) reads the state of the kernel and applies actions.
// See docs/adr/0034-host-reconciler.md.
package hoststate
