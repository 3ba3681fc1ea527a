// Package nftsum computes checksums of nftables tables, to find out whether another program has changed one.
//
// It asks the kernel directly, which takes less than a millisecond; the nft program takes ten. A table is compared with its own
// checksum of an earlier moment, so no part of it has to be understood. The checksum covers the flags of the table, its
// chains with hook, priority and policy, its rules in their order, and the elements of its sets. It leaves out what changes by
// itself: handles, the values of named counters, and the elements of sets that rules change ("dynamic"). Rules with
// anonymous counters change by themselves, and may not be used.
package nftsum

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Family is the address family of a table, as the kernel numbers it.
type Family uint8

// Families.
const (
	Inet   Family = unix.NFPROTO_INET
	IPv4   Family = unix.NFPROTO_IPV4
	IPv6   Family = unix.NFPROTO_IPV6
	Bridge Family = unix.NFPROTO_BRIDGE
)

// Sum is the checksum of a table. The zero Sum is that of no table.
type Sum [sha256.Size]byte

// ErrNoTable means that there is no such table.
var ErrNoTable = errors.New("nftsum: there is no such table")

// errInterrupted means that the rules changed while they were read.
var errInterrupted = errors.New("the rules changed while they were read")

// attempts bounds the repetitions of a read that changes of rules interrupt.
const attempts = 20

// Of returns the checksum of a table in the network namespace of the calling thread. The error wraps ErrNoTable if there is
// none.
func Of(family Family, table string) (Sum, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return Sum{}, fmt.Errorf("nftsum: netlink: %w", err)
	}
	defer func() { _ = c.Close() }()
	r := reader{c, family, table}
	for range attempts {
		sum, err := r.sum()
		if errors.Is(err, errInterrupted) {
			continue
		}
		if err != nil {
			return Sum{}, fmt.Errorf("nftsum: read the table %s: %w", table, err)
		}
		return sum, nil
	}
	return Sum{}, fmt.Errorf("nftsum: read the table %s: %w, in each of %d attempts", table, errInterrupted, attempts)
}

// HasChain reports whether a table has a chain, in the network namespace of the calling thread. A missing table, and a kernel without
// the family, have none.
func HasChain(family Family, table, chain string) (bool, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return false, fmt.Errorf("nftsum: netlink: %w", err)
	}
	defer func() { _ = c.Close() }()
	_, err = reader{c, family, table}.request(unix.NFT_MSG_GETCHAIN, 0, attribute{unix.NFTA_CHAIN_TABLE, table},
		attribute{unix.NFTA_CHAIN_NAME, chain})
	if errors.Is(err, ErrNoTable) || errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("nftsum: look for the chain %s: %w", chain, err)
	}
	return true, nil
}

// Unchanged reports whether the checksum that read returns is want. A table that is gone is changed: that is no error.
func Unchanged(want Sum, read func() (Sum, error)) (bool, error) {
	now, err := read()
	if errors.Is(err, ErrNoTable) {
		return false, nil
	}
	return err == nil && now == want, err
}

// reader reads one table.
type reader struct {
	conn   *netlink.Conn
	family Family
	table  string
}

// sum returns the checksum.
func (r reader) sum() (Sum, error) {
	tables, err := r.request(unix.NFT_MSG_GETTABLE, 0, attribute{unix.NFTA_TABLE_NAME, r.table})
	if err != nil {
		return Sum{}, err
	}
	h := sha256.New()
	add := func(kind uint16, parts ...[]byte) {
		for _, p := range append([][]byte{binary.BigEndian.AppendUint16(nil, kind)}, parts...) {
			h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(p))))
			h.Write(p)
		}
	}
	for _, t := range tables {
		add(unix.NFT_MSG_GETTABLE, t[unix.NFTA_TABLE_FLAGS])
	}
	for _, d := range dumps {
		list, err := r.request(d.message, netlink.Dump, attribute{d.ofTable, r.table})
		if err != nil {
			return Sum{}, err
		}
		for _, object := range list {
			if name(object[d.ofTable]) != r.table { // old kernels ignore the filter
				continue
			}
			parts := make([][]byte, 0, len(d.parts))
			for _, p := range d.parts {
				parts = append(parts, object[p])
			}
			add(d.message, parts...)
			if d.message != unix.NFT_MSG_GETSET || isDynamic(object[unix.NFTA_SET_FLAGS]) {
				continue
			}
			elements, err := r.request(unix.NFT_MSG_GETSETELEM, netlink.Dump, attribute{unix.NFTA_SET_ELEM_LIST_TABLE, r.table},
				attribute{unix.NFTA_SET_ELEM_LIST_SET, name(object[unix.NFTA_SET_NAME])})
			if err != nil {
				return Sum{}, err
			}
			sorted, err := sortedElements(elements)
			if err != nil {
				return Sum{}, err
			}
			add(unix.NFT_MSG_GETSETELEM, sorted...)
		}
	}
	return Sum(h.Sum(nil)), nil
}

// isDynamic reports whether rules change the elements of a set with the given flags.
func isDynamic(flags []byte) bool {
	return len(flags) == 4 && binary.BigEndian.Uint32(flags)&unix.NFT_SET_EVAL != 0
}

// sortedElements returns the elements of a set, from the parts of its list. The kernel lists them in a random order.
func sortedElements(parts []object) (elements [][]byte, err error) {
	for _, p := range parts {
		d, err := netlink.NewAttributeDecoder(p[unix.NFTA_SET_ELEM_LIST_ELEMENTS])
		if err != nil {
			return nil, err
		}
		for d.Next() {
			elements = append(elements, d.Bytes())
		}
		if err := d.Err(); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(elements, bytes.Compare)
	return elements, nil
}

// dumps are the lists of objects that a table has, and the parts of each object that belong to the checksum.
var dumps = []struct {
	message uint16
	ofTable uint16 // the attribute with the name of the table
	parts   []uint16
}{
	{unix.NFT_MSG_GETCHAIN, unix.NFTA_CHAIN_TABLE, []uint16{
		unix.NFTA_CHAIN_NAME, unix.NFTA_CHAIN_TYPE, unix.NFTA_CHAIN_HOOK, unix.NFTA_CHAIN_POLICY}},
	{unix.NFT_MSG_GETRULE, unix.NFTA_RULE_TABLE, []uint16{unix.NFTA_RULE_CHAIN, unix.NFTA_RULE_EXPRESSIONS}},
	{unix.NFT_MSG_GETSET, unix.NFTA_SET_TABLE, []uint16{unix.NFTA_SET_NAME, unix.NFTA_SET_KEY_TYPE}},
}

// attribute is a filter of a request.
type attribute struct {
	kind  uint16
	value string
}

// object has the attributes of an object in the kernel, by their numbers. A nested attribute is a value of its own.
type object map[uint16][]byte

// request returns the objects that the kernel answers with. The error wraps ErrNoTable or errInterrupted.
func (r reader) request(message uint16, flags netlink.HeaderFlags, filter ...attribute) ([]object, error) {
	encoder := netlink.NewAttributeEncoder()
	for _, a := range filter {
		encoder.String(a.kind, a.value)
	}
	attributes, err := encoder.Encode()
	if err != nil {
		return nil, err
	}
	answers, err := r.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | message), Flags: netlink.Request | flags},
		Data:   append([]byte{byte(r.family), unix.NFNETLINK_V0, 0, 0}, attributes...), // struct nfgenmsg
	})
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil, ErrNoTable
	case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
		return nil, errInterrupted
	case err != nil:
		return nil, err
	}
	objects := make([]object, 0, len(answers))
	for _, m := range answers {
		if m.Header.Flags&netlink.DumpInterrupted != 0 && flags == netlink.Dump {
			return nil, errInterrupted
		}
		o, err := parse(m.Data)
		if err != nil {
			return nil, err
		}
		objects = append(objects, o)
	}
	return objects, nil
}

// headerLen is the length of struct nfgenmsg, which precedes the attributes.
const headerLen = 4

// parse returns the attributes of an answer.
func parse(data []byte) (object, error) {
	if len(data) < headerLen {
		return nil, errors.New("a message of the kernel is too short")
	}
	d, err := netlink.NewAttributeDecoder(data[headerLen:])
	if err != nil {
		return nil, err
	}
	o := object{}
	for d.Next() {
		o[d.Type()] = d.Bytes()
	}
	return o, d.Err()
}

// name returns a string of the kernel without its final zero byte.
func name(b []byte) string {
	if n := len(b); n > 0 && b[n-1] == 0 {
		return string(b[:n-1])
	}
	return string(b)
}
