package firewall

import (
	"testing"

	"weft/internal/nflog"
)

// FuzzDrop decodes packets of the kernel's log group, which pods have sent.
func FuzzDrop(f *testing.F) {
	f.Add("egress", append([]byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 32, 0, 1, 10, 32, 0, 2}, 0x12, 0x34, 0, 53, 0, 8, 0, 0))
	f.Fuzz(func(_ *testing.T, prefix string, data []byte) { parseDrop(nflog.Packet{Prefix: prefix, Data: data}) })
}

// FuzzConnection decodes messages of the kernel's table of connections.
func FuzzConnection(f *testing.F) {
	f.Add([]byte{2, 0, 0, 0, 20, 0, 1, 0x80, 12, 0, 1, 0x80, 8, 0, 1, 0, 10, 32, 0, 1})
	f.Fuzz(func(_ *testing.T, message []byte) { parseConnection(message) })
}
