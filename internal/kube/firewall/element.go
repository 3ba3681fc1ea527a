package firewall

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"sigs.k8s.io/knftables"
)

// element is an element of a set or map that is added or removed.
type element struct {
	family  knftables.Family
	set     string
	prefix  netip.Prefix // its key; else parts
	parts   []string     // addresses, names of interfaces, and marks in hexadecimal
	verdict string       // of a map: "jump CHAIN" or "goto CHAIN"
	remove  bool
}

// key returns the key in the syntax of nft.
func (e element) key() []string {
	switch {
	case !e.prefix.IsValid():
		return e.parts
	case e.prefix.IsSingleIP():
		return []string{e.prefix.Addr().String()}
	}
	return []string{e.prefix.String()}
}

// maxDirect is the number of elements up to which they are sent directly. The messages of one transaction are one datagram, which must fit
// into the buffer of a socket.
const maxDirect = 5000

// maxElements is the number of elements in one message to the kernel, in which a list must be shorter than 64 KiB.
const maxElements = 500

// runDirect changes elements in one transaction, without the nft program, which takes ten milliseconds to start. It fails, and changes
// nothing, if a set is missing, or an element that it removes.
func runDirect(elements []element) error {
	conn, err := nftables.New(nftables.WithSockOptions(func(c *netlink.Conn) error {
		return c.SetDeadline(time.Now().Add(runTimeout)) // the kernel answers some errors once for all messages
	}))
	if err != nil {
		return fmt.Errorf("firewall: netlink: %w", err)
	}
	for len(elements) > 0 {
		n := 1
		for n < len(elements) && n < maxElements && elements[n].sameList(elements[0]) {
			n++
		}
		if err := addDirect(conn, elements[:n]); err != nil {
			return err
		}
		elements = elements[n:]
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("firewall: change elements: %w", err)
	}
	return nil
}

// sameList reports whether two elements are added to, or removed from, the same set.
func (e element) sameList(f element) bool {
	return e.family == f.family && e.set == f.set && e.remove == f.remove
}

// addDirect adds a message that adds or removes elements of one set.
func addDirect(conn *nftables.Conn, elements []element) error {
	first := elements[0]
	family := nftables.TableFamilyINet
	if first.family == knftables.BridgeFamily {
		family = nftables.TableFamilyBridge
	}
	set := &nftables.Set{Table: &nftables.Table{Family: family, Name: Table}, Name: first.set}
	list := make([]nftables.SetElement, len(elements))
	for i, e := range elements {
		key, err := e.bytes()
		if err != nil {
			return err
		}
		list[i].Key = key
		if e.verdict != "" && !e.remove {
			list[i].VerdictData = verdictOf(e.verdict)
		}
	}
	if first.remove {
		return conn.SetDeleteElements(set, list)
	}
	return conn.SetAddElements(set, list)
}

func verdictOf(text string) *expr.Verdict {
	action, chain, _ := strings.Cut(text, " ")
	if action == "goto" {
		return &expr.Verdict{Kind: expr.VerdictGoto, Chain: chain}
	}
	return &expr.Verdict{Kind: expr.VerdictJump, Chain: chain}
}

// Lengths of keys in the kernel, in bytes. Parts of a key fill multiples of four.
const (
	nameLen = 16 // IFNAMSIZ
	markLen = 4
)

// bytes returns the key as the kernel has it.
func (e element) bytes() (key []byte, err error) {
	if e.prefix.IsValid() {
		return e.prefix.Addr().AsSlice(), nil
	}
	for _, part := range e.parts {
		if addr, err := netip.ParseAddr(part); err == nil {
			key = append(key, addr.AsSlice()...)
			continue
		}
		if hex, ok := strings.CutPrefix(part, "0x"); ok {
			mark, err := strconv.ParseUint(hex, 16, 8*markLen)
			if err != nil {
				return nil, fmt.Errorf("firewall: mark %s: %w", part, err)
			}
			key = binary.NativeEndian.AppendUint32(key, uint32(mark))
			continue
		}
		if len(part) >= nameLen {
			return nil, fmt.Errorf("firewall: %q is too long for the name of an interface", part)
		}
		key = append(append(key, part...), make([]byte, nameLen-len(part))...)
	}
	return key, nil
}
