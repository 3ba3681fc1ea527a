package datapath

import (
	"sync/atomic"

	"weft/internal/peer"
	"weft/router"
)

// controlMesh is the channel of gossip among the control messages between nodes.
const controlMesh = router.MinControl

// Tunnel sends gossip through the sessions of a datapath. It exists before the datapath, and sends nothing until that is up.
// The zero Tunnel is ready to use. It implements mesh.Tunnel.
type Tunnel struct{ engine atomic.Pointer[router.Engine] }

// Send sends a message, sealed, to a peer with a session.
func (t *Tunnel) Send(to peer.ID, message []byte) error {
	e := t.engine.Load()
	if e == nil {
		return errStarting()
	}
	return e.SendControl(to, controlMesh, message)
}

// Open reports whether there is a session with a peer.
func (t *Tunnel) Open(to peer.ID) bool {
	e := t.engine.Load()
	return e != nil && e.HasSession(to)
}
