package mesh

import "weft/mesh/nodekey"

// KeyFile is the name of the file in the state directory that holds a node's private key.
const KeyFile = nodekey.File

// ErrBadKey is wrapped by LoadIdentity's error for a key file that holds no key.
var ErrBadKey = nodekey.ErrBadKey

// Identity identifies a node: its key pair, and the ID derived from it.
type Identity = nodekey.Identity

// NewIdentity returns a new random identity.
func NewIdentity() (Identity, error) { return nodekey.New() }

// LoadIdentity reads the identity in folder dir, and makes one there at the first start.
func LoadIdentity(dir string) (Identity, error) { return nodekey.Load(dir) }
