package firewall

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
)

// element is an element of a set, or of a map if it has a verdict.
type element struct {
	key     key
	verdict verdict
}

// key is the key of an element: what is set of it, in this order.
type key struct {
	port  string
	addr  netip.Prefix
	again bool // addr a second time
	mark  int
}

// elements are the elements of a map, or those of a set, which have no verdicts.
type elements map[key]verdict

// keyOf returns the key for an address.
func keyOf(ip netip.Addr) key { return key{addr: netip.PrefixFrom(ip, ip.BitLen())} }

// text returns the parts of the key in the syntax of nft.
func (k key) text() (parts []string) {
	if k.port != "" {
		parts = append(parts, k.port)
	}
	switch {
	case k.addr.IsSingleIP():
		parts = append(parts, k.addr.Addr().String())
	case k.addr.IsValid():
		parts = append(parts, k.addr.String())
	}
	if k.again {
		parts = append(parts, k.addr.Addr().String())
	}
	if k.mark != 0 {
		parts = append(parts, fmt.Sprintf("%#x", k.mark))
	}
	return parts
}

// Lengths of keys in the kernel, in bytes. Parts of a key fill multiples of four.
const (
	nameLen = 16 // IFNAMSIZ
	markLen = 4
)

// bytes returns the key as the kernel has it, that of a block's first address.
func (k key) bytes() (out []byte, err error) {
	if len(k.port) >= nameLen {
		return nil, fmt.Errorf("firewall: %q is too long for the name of an interface", k.port)
	}
	if k.port != "" {
		out = append(append(out, k.port...), make([]byte, nameLen-len(k.port))...)
	}
	out = append(out, k.addr.Addr().AsSlice()...)
	if k.again {
		out = append(out, k.addr.Addr().AsSlice()...)
	}
	if k.mark != 0 {
		out = append(out, markBytes(k.mark)...)
	}
	return out, nil
}

// markBytes returns the value of a mark as the kernel has it.
func markBytes(mark int) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(mark)) }

// compare orders keys of the same set.
func (e element) compare(f element) int {
	return cmp.Or(cmp.Compare(e.key.port, f.key.port), e.key.addr.Compare(f.key.addr), cmp.Compare(e.key.mark, f.key.mark))
}
