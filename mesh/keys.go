package mesh

import (
	"time"

	"weft/mesh/keyring"
)

// MaxKeys is how many keys a mesh can have.
const MaxKeys = keyring.Max

// publishTimeout bounds how long new metadata is waited for to reach the first other node.
const publishTimeout = 2 * time.Second

// ErrKeys is wrapped by the errors about keys that a mesh cannot use.
var ErrKeys = keyring.ErrKeys

// GossipKey is a key from which those that seal gossip are derived.
type GossipKey = keyring.Key

// otherMembers are the members of a mesh as its keyring sees them.
type otherMembers struct{ mesh *Mesh }

var _ keyring.Members = otherMembers{}

// Others implements keyring.Members.
func (o otherMembers) Others() []keyring.Member { return o.mesh.roster.others() }

// publishKeys seals with a key that all members have, and publishes which ones this node has.
func (m *Mesh) publishKeys() error {
	if err := m.keys.Choose(); err != nil {
		return err
	}
	m.publish(publishTimeout)
	return nil
}
