package nftwatch

import (
	"encoding/binary"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Messages of nf_tables (linux/netfilter/nf_tables.h, nfnetlink.h).
const (
	newGeneration = netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWGEN)
	getGeneration = netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN)
	generationID  = 1 // NFTA_GEN_ID
	headerLen     = 4 // of struct nfgenmsg: address family, version, resource; zeros mean all
)

// Generation returns the number of the last change to any table in the network namespace of the calling thread.
func Generation() (uint32, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return 0, fmt.Errorf("nftwatch: netlink: %w", err)
	}
	defer func() { _ = conn.Close() }()
	replies, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: getGeneration, Flags: netlink.Request},
		Data:   make([]byte, headerLen),
	})
	if err != nil {
		return 0, fmt.Errorf("nftwatch: get the generation of nftables: %w", err)
	}
	for _, r := range replies {
		if generation, ok := generationOf(r); ok {
			return generation, nil
		}
	}
	return 0, fmt.Errorf("nftwatch: the kernel returned no generation of nftables")
}

// generationOf returns the generation in a message.
func generationOf(m netlink.Message) (generation uint32, ok bool) {
	if len(m.Data) < headerLen {
		return 0, false
	}
	attrs, err := netlink.NewAttributeDecoder(m.Data[headerLen:])
	if err != nil {
		return 0, false
	}
	attrs.ByteOrder = binary.BigEndian
	for attrs.Next() {
		if attrs.Type() == generationID {
			return attrs.Uint32(), attrs.Err() == nil
		}
	}
	return 0, false
}
