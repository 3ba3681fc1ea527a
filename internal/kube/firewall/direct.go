package firewall

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/knftables"

	"weft/internal/ether"
)

// maxDirect bounds the size of transactions that are sent directly, in elements and objects. The messages of one transaction are one
// datagram, and each is answered.
const maxDirect = 5000

// maxElements is the number of elements in one message to the kernel, in which a list must be shorter than 64 KiB.
const maxElements = 500

// Buffers of the socket: for a datagram with maxDirect rules of 700 bytes, and for the answers and echoes, which take 1 KiB each.
const (
	sendBuffer    = 4 << 20
	receiveBuffer = 16 << 20
)

// step adds the messages for one operation of a transaction.
type step func(*sender) error

// sender collects the messages of one transaction. Expressions are those that the nft program makes of the same text:
// nft --debug=netlink shows them. TestDirect and its siblings compare what the kernel has of both.
type sender struct {
	*nftables.Conn
	sets uint32 // anonymous sets so far
}

// kernel makes transactions without the nft program, which takes ten milliseconds to start. Its socket stays open from the first
// transaction on: when one is closed, the kernel first frees what transactions have deleted, for which it waits, and lets no other
// transaction run meanwhile (see nftwatch.Generations). The zero kernel has no socket. Its methods must not be called concurrently.
type kernel struct {
	conn   *nftables.Conn // nil: none
	socket *netlink.Conn  // of conn
}

// open opens the socket in the network namespace of the calling thread.
func (k *kernel) open() (err error) {
	k.conn, err = nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
		k.socket = c
		if err := c.SetWriteBuffer(sendBuffer); err != nil {
			return err
		}
		return c.SetReadBuffer(receiveBuffer)
	}))
	return err
}

// close closes the socket, if there is one.
func (k *kernel) close() error {
	if k.conn == nil {
		return nil
	}
	err := k.conn.CloseLasting()
	k.conn, k.socket = nil, nil
	return err
}

// run makes one transaction. It changes nothing if a step fails, as one does for a missing set, or for an element that it removes in vain.
func (k *kernel) run(steps []step) error {
	if k.conn == nil {
		if err := k.open(); err != nil {
			return fmt.Errorf("firewall: netlink: %w", err)
		}
	}
	if err := k.send(steps); err != nil {
		_ = k.close() // it may have messages, or answers, of the failed transaction
		return fmt.Errorf("firewall: send rules: %w", err)
	}
	return nil
}

func (k *kernel) send(steps []step) error {
	if err := k.socket.SetDeadline(time.Now().Add(runTimeout)); err != nil { // the kernel answers some errors once for all messages
		return err
	}
	s := &sender{Conn: k.conn}
	for _, add := range steps {
		if err := add(s); err != nil {
			return err
		}
	}
	return k.conn.Flush()
}

// tableOf returns the table of a family.
func tableOf(f knftables.Family) *nftables.Table {
	if f == knftables.BridgeFamily {
		return &nftables.Table{Family: nftables.TableFamilyBridge, Name: Table}
	}
	return &nftables.Table{Family: nftables.TableFamilyINet, Name: Table}
}

func chainOf(f knftables.Family, name string) *nftables.Chain {
	return &nftables.Chain{Table: tableOf(f), Name: name}
}

func setOf(f knftables.Family, name string) *nftables.Set {
	return &nftables.Set{Table: tableOf(f), Name: name}
}

// addSet adds an empty set of addresses.
func (k *sender) addSet(f knftables.Family, name string, s set) error {
	add := setOf(f, name)
	add.KeyType, add.KeyByteOrder, add.Interval = addrTypes[s.addr], binaryutil.BigEndian, s.interval
	k.sets++
	add.ID = k.sets
	return k.AddSet(add, nil)
}

// change adds or removes elements of a set or map. If interval is true, the set has blocks of addresses: the first address of each, and
// the one behind it.
func (k *sender) change(f knftables.Family, set string, interval bool, elements []element, remove bool) error {
	var list []nftables.SetElement
	for _, e := range elements {
		bytes, err := e.key.bytes()
		if err != nil {
			return err
		}
		add := nftables.SetElement{Key: bytes}
		if e.verdict != (verdict{}) && !remove {
			add.VerdictData = e.verdict.expr()
		}
		list = append(list, add)
		if !interval {
			continue
		}
		if end := behind(e.key.addr); end.IsValid() {
			list = append(list, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
		}
	}
	if remove {
		return k.SetDeleteElements(setOf(f, set), list)
	}
	return k.SetAddElements(setOf(f, set), list)
}

// behind returns the address behind a block; invalid if there is none.
func behind(p netip.Prefix) netip.Addr {
	last := p.Addr().AsSlice()
	for i := p.Bits(); i < p.Addr().BitLen(); i++ {
		last[i/8] |= 0x80 >> (i % 8)
	}
	ip, _ := netip.AddrFromSlice(last)
	return ip.Next()
}

// addRule appends a rule to a chain.
func (k *sender) addRule(f knftables.Family, chain string, r rule) error {
	exprs, err := k.exprs(tableOf(f), r)
	if err != nil {
		return err
	}
	k.AddRule(&nftables.Rule{Table: tableOf(f), Chain: chainOf(f, chain), Exprs: exprs})
	return nil
}

// Registers that hold what a rule has loaded. The parts of a concatenation follow each other: a name fills the first register of 16 bytes,
// a protocol the first 4 bytes of it.
const (
	register     = unix.NFT_REG_1
	afterName    = unix.NFT_REG_2
	afterNumber  = unix.NFT_REG32_01
	typeOffset   = 12 // in the Ethernet header
	serverOffset = 2  // of the destination port in the headers of TCP, UDP and SCTP; the source port is at 0
	portLen      = 2
)

var (
	frameTypes = map[string]uint16{"ip": ether.TypeIPv4, "ip6": ether.TypeIPv6, "arp": ether.TypeARP}
	protocols  = map[corev1.Protocol]byte{
		corev1.ProtocolTCP: unix.IPPROTO_TCP, corev1.ProtocolUDP: unix.IPPROTO_UDP, corev1.ProtocolSCTP: unix.IPPROTO_SCTP,
	}
	addrTypes = map[string]nftables.SetDatatype{"ipv4_addr": nftables.TypeIPAddr, "ipv6_addr": nftables.TypeIP6Addr}
	portKeys  = map[string]expr.MetaKey{"iifname": expr.MetaKeyIIFNAME, "oifname": expr.MetaKeyOIFNAME}
	verdicts  = map[string]expr.VerdictKind{
		"accept": expr.VerdictAccept, "return": expr.VerdictReturn, "jump": expr.VerdictJump, "goto": expr.VerdictGoto,
	}
)

// exprs returns the rule as the kernel has it. It adds the anonymous set that the rule may need.
func (k *sender) exprs(table *nftables.Table, r rule) (out []expr.Any, err error) {
	switch {
	case len(r.ports) > 0:
		return k.portMap(table, r)
	case len(r.types.any) > 0:
		if out, err = k.frameType(table, r.types); err != nil {
			return nil, err
		}
	case len(r.sets) > 0:
		out = append(out, &expr.Meta{Key: expr.MetaKeyNFPROTO, Register: register}, equal([]byte{r.family.number()}))
	}
	for _, l := range r.sets {
		next := uint32(register)
		if l.port != "" {
			out = append(out, &expr.Meta{Key: portKeys[l.port], Register: next})
			next = afterName
		}
		offset, length := r.family.place(l.end)
		out = append(out,
			&expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length, DestRegister: next},
			&expr.Lookup{SourceRegister: register, SetName: l.set, Invert: l.not})
	}
	if r.mark != (marking{}) {
		out = append(out,
			&expr.Meta{Key: expr.MetaKeyMARK, Register: register},
			&expr.Bitwise{
				SourceRegister: register, DestRegister: register, Len: markLen,
				Mask: markBytes(^(r.mark.clear | r.mark.set)), Xor: markBytes(r.mark.set),
			},
			&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: register})
	}
	if r.verdict != (verdict{}) {
		out = append(out, r.verdict.expr())
	}
	return out, nil
}

// frameType returns the condition on the type of frames.
func (k *sender) frameType(table *nftables.Table, t types) ([]expr.Any, error) {
	load := &expr.Payload{Base: expr.PayloadBaseLLHeader, Offset: typeOffset, Len: 2, DestRegister: register}
	keys := make([]nftables.SetElement, len(t.any))
	for i, word := range t.any {
		keys[i].Key = binaryutil.BigEndian.PutUint16(frameTypes[word])
	}
	if len(keys) == 1 && !t.not {
		return []expr.Any{load, equal(keys[0].Key)}, nil
	}
	set, err := k.anonymous(&nftables.Set{Table: table, KeyType: nftables.TypeEtherType}, keys)
	if err != nil {
		return nil, err
	}
	return []expr.Any{load, &expr.Lookup{SourceRegister: register, SetName: set.Name, SetID: set.ID, Invert: t.not}}, nil
}

// portMap returns the lookup of the verdict by protocol and port.
func (k *sender) portMap(table *nftables.Table, r rule) ([]expr.Any, error) {
	ranged := r.ranged()
	elements := make([]nftables.SetElement, len(r.ports))
	for i, p := range r.ports {
		key := func(port uint16) []byte {
			return []byte{protocols[p.Protocol], 0, 0, 0, byte(port >> 8), byte(port), 0, 0}
		}
		elements[i].Key, elements[i].VerdictData = key(p.First), goTo(r.family.name(p.Chain)).expr()
		if ranged {
			elements[i].KeyEnd = key(p.Last)
		}
	}
	set, err := k.anonymous(&nftables.Set{
		Table: table, IsMap: true, Interval: ranged, Concatenation: ranged, DataType: nftables.TypeVerdict,
		KeyType: nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService),
	}, elements)
	if err != nil {
		return nil, err
	}
	out := []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register}}
	if ranged { // changes nothing; the nft program has it for ranges
		out = append(out, &expr.Byteorder{SourceRegister: register, DestRegister: register, Op: expr.ByteorderHton, Len: 1, Size: 2})
	}
	offset := uint32(serverOffset)
	if r.family.backward {
		offset = 0
	}
	return append(out,
		&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: portLen, DestRegister: afterNumber},
		&expr.Lookup{SourceRegister: register, IsDestRegSet: true, SetName: set.Name, SetID: set.ID}), nil
}

// anonymous adds a set that has no name. The rule that refers to it must follow.
func (k *sender) anonymous(set *nftables.Set, elements []nftables.SetElement) (*nftables.Set, error) {
	k.sets++
	set.ID, set.Name = k.sets, "__set%d"
	if set.IsMap {
		set.Name = "__map%d"
	}
	set.Anonymous, set.Constant, set.Size = true, true, uint32(len(elements))
	return set, k.AddSet(set, elements)
}

// equal returns the condition that the register has a value.
func equal(value []byte) expr.Any {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: value}
}

// expr returns the verdict as the kernel has it.
func (v verdict) expr() *expr.Verdict { return &expr.Verdict{Kind: verdicts[v.action], Chain: v.chain} }

// number returns the family's number in netfilter.
func (f family) number() byte {
	if f.is4 {
		return unix.NFPROTO_IPV4
	}
	return unix.NFPROTO_IPV6
}

// place returns where the IP header has an address.
func (f family) place(end string) (offset, length uint32) {
	offset, length = 8, 16
	if f.is4 {
		offset, length = 12, 4
	}
	if end == "daddr" {
		offset += length
	}
	return offset, length
}
