// Package daemon wires the engines of one node together: mesh, ipam and router, the bridge under them, and the API
// on top. It is the only place where they meet.
package daemon
