package mesh

import (
	"fmt"

	"weft/mesh/seal"
)

// checkPacket returns why a packet cannot be passed to memberlist.
func checkPacket(b []byte) error { return checkNotEmpty(b) }

// checkStream returns why a message of a stream cannot be passed to memberlist.
func checkStream(b []byte) error { return checkNotEmpty(b) }

func checkNotEmpty(b []byte) error {
	if len(b) == 0 {
		return fmt.Errorf("%w: nothing for memberlist", seal.ErrMalformed)
	}
	return nil
}
