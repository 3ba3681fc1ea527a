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
	g, err := OpenGenerations()
	if err != nil {
		return 0, err
	}
	defer func() { _ = g.Close() }()
	return g.Get()
}

// Generations reads generations over one socket. When a socket of netfilter is closed, the kernel first frees what transactions have
// deleted, for which it waits some milliseconds, and no other transaction runs meanwhile (nft_rcv_nl_event in
// net/netfilter/nf_tables_api.c). Its methods may be called concurrently.
type Generations struct{ conn *netlink.Conn }

// OpenGenerations opens the socket in the network namespace of the calling thread. The caller must close it.
func OpenGenerations() (*Generations, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("nftwatch: netlink: %w", err)
	}
	return &Generations{conn}, nil
}

// Close closes the socket.
func (g *Generations) Close() error { return g.conn.Close() }

// Get returns the number of the last change to any table.
func (g *Generations) Get() (uint32, error) {
	replies, err := g.conn.Execute(netlink.Message{
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
