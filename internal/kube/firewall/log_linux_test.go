package firewall

import (
	"testing"

	"github.com/mdlayher/netlink"
)

// FuzzDrop decodes messages of the kernel's log group, which contain packets of pods.
func FuzzDrop(f *testing.F) {
	packet := append([]byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 32, 0, 1, 10, 32, 0, 2}, 0x12, 0x34, 0, 53, 0, 8, 0, 0)
	attrs, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: attrPrefix, Data: []byte("egress\x00")}, {Type: attrPayload, Data: packet},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append(nfgenmsg(LogGroup), attrs...))
	f.Fuzz(func(_ *testing.T, data []byte) {
		parseDrop(netlink.Message{Header: netlink.Header{Type: logPacket}, Data: data})
	})
}
