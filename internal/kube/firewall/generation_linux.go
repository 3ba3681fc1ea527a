package firewall

import (
	"encoding/binary"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Messages of nf_tables (linux/netfilter/nf_tables.h, nfnetlink.h).
const (
	getGeneration = netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN)
	generationID  = 1 // NFTA_GEN_ID
	headerLen     = 4 // of struct nfgenmsg: address family, version, resource; zeros mean all
)

// generation returns the number of the last change to any table in the network namespace of the calling thread.
func generation() (uint32, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return 0, fmt.Errorf("firewall: netlink: %w", err)
	}
	defer func() { _ = conn.Close() }()
	replies, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: getGeneration, Flags: netlink.Request},
		Data:   make([]byte, headerLen),
	})
	if err != nil {
		return 0, fmt.Errorf("firewall: get the generation of nftables: %w", err)
	}
	for _, r := range replies {
		if len(r.Data) < headerLen {
			continue
		}
		attrs, err := netlink.NewAttributeDecoder(r.Data[headerLen:])
		if err != nil {
			return 0, fmt.Errorf("firewall: decode the generation of nftables: %w", err)
		}
		attrs.ByteOrder = binary.BigEndian
		for attrs.Next() {
			if attrs.Type() == generationID {
				return attrs.Uint32(), attrs.Err()
			}
		}
	}
	return 0, fmt.Errorf("firewall: the kernel returned no generation of nftables")
}
