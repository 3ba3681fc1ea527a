package vxlan

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// gate is the second filter of senders, which no firewall program can remove: "nft flush ruleset" takes the nftables table
// away, and until it is back any host could send into the overlay.
//
// It is a BPF program at the kernel's lookup of sockets (BPF_PROG_TYPE_SK_LOOKUP, Linux 5.9,
// Documentation/bpf/prog_sk_lookup.rst). The kernel runs it in this network namespace when it looks for the socket of an
// incoming UDP datagram, that of a VXLAN device included. For the device's port it lets in the peers alone, from privileged ports or the
// one of their pair, and nothing from the pods' bridge (from Linux 5.17 on); the kernel treats other datagrams as if there were no socket.
// Datagrams to the VXLAN port of another host are up to the nftables table. See docs/adr/0034-host-reconciler.md.
//
// The program is attached as long as the process holds its descriptors. It is not safe for concurrent use.
type gate struct {
	senders *ebpf.Map // sender.key -> 1
	bridge  *ebpf.Map // 0 -> index of the pods' bridge; 0: not known
	program *ebpf.Program
	link    link.Link
	open    map[sender]bool // in senders
}

// sender is an address that may send to the device, from a port or, with port 0, from all privileged ones.
type sender struct {
	addr netip.Addr
	port uint16
}

// senderLen is the length of the key of a sender: the address, the port in network byte order, and zeros.
const senderLen = 20

func (s sender) key() []byte {
	addr := s.addr.As16()
	return append(binary.BigEndian.AppendUint16(addr[:], s.port), 0, 0)
}

// openGate attaches a gate that lets in no sender to the UDP port, in a network namespace. under is the index of the only interface from
// which it will let in some; 0: any. It fails where the kernel or the privileges of the process do not allow it.
func openGate(ns netns.NsHandle, port uint16, under int) (_ *gate, err error) {
	g := &gate{open: map[sender]bool{}}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("vxlan: filter at the lookup of sockets: %w", err), g.close())
		}
	}()
	if g.senders, err = ebpf.NewMap(&ebpf.MapSpec{
		Name: "weft_senders", Type: ebpf.Hash, KeySize: senderLen, ValueSize: 1, MaxEntries: maxEntries, Flags: unix.BPF_F_NO_PREALLOC,
	}); err != nil {
		return nil, err
	}
	if g.bridge, err = ebpf.NewMap(&ebpf.MapSpec{
		Name: "weft_bridge", Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1,
	}); err != nil {
		return nil, err
	}
	// Kernels that do not know the interface refuse the first program.
	g.program, err = newGateProgram(append(notFrom(g.bridge.FD(), port), gateProgram(g.senders.FD(), port, under)...))
	if err != nil && under == 0 {
		g.program, err = newGateProgram(gateProgram(g.senders.FD(), port, under))
	}
	if err != nil {
		return nil, err
	}
	if g.link, err = link.AttachNetNs(int(ns), g.program); err != nil {
		return nil, err
	}
	return g, nil
}

func newGateProgram(instructions asm.Instructions) (*ebpf.Program, error) {
	return ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "weft_gate", Type: ebpf.SkLookup, AttachType: ebpf.AttachSkLookup, License: "Apache-2.0", Instructions: instructions,
	})
}

// Offsets in struct bpf_sk_lookup (linux/bpf.h), the argument of the program.
const (
	lookupFamily     = 8
	lookupProtocol   = 12
	lookupRemoteIP4  = 16 // in network byte order
	lookupRemoteIP6  = 20
	lookupRemotePort = 36 // in network byte order
	lookupLocalPort  = 60 // a number in host byte order
	lookupInterface  = 64 // index; since Linux 5.17
)

// notFrom returns the beginning of the program: datagrams to port from the interface in the map are dropped.
func notFrom(bridge int, port uint16) asm.Instructions {
	const key = -4 // on the stack
	return asm.Instructions{
		asm.Mov.Reg(asm.R7, asm.R1),
		asm.LoadMem(asm.R0, asm.R7, lookupLocalPort, asm.Word),
		asm.JNE.Imm(asm.R0, int32(port), "others"),
		asm.StoreImm(asm.RFP, key, 0, asm.Word),
		asm.LoadMapPtr(asm.R1, bridge),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, key),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "others"), // never: the verifier requires the check
		asm.LoadMem(asm.R2, asm.R0, 0, asm.Word),
		asm.LoadMem(asm.R3, asm.R7, lookupInterface, asm.Word),
		asm.JNE.Reg(asm.R2, asm.R3, "others"),
		asm.Mov.Imm(asm.R0, 0),
		asm.Return(), // SK_DROP
		asm.Mov.Reg(asm.R1, asm.R7).WithSymbol("others"),
	}
}

// gateProgram returns the program: datagrams to port pass if senders has their address, an IPv4 one as ::ffff:a.b.c.d, with their port, or
// with port 0 if they come from a privileged one, and they come from the interface under, if that is not 0. All other packets pass.
func gateProgram(senders int, port uint16, under int) asm.Instructions {
	const key = -senderLen // on the stack
	find := asm.Instructions{
		asm.LoadMapPtr(asm.R1, senders),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, key),
		asm.FnMapLookupElem.Call(),
		asm.JNE.Imm(asm.R0, 0, "pass"),
	}
	var elsewhere asm.Instructions
	if under != 0 {
		elsewhere = asm.Instructions{
			asm.LoadMem(asm.R0, asm.R6, lookupInterface, asm.Word),
			asm.JNE.Imm(asm.R0, int32(under), "drop"),
		}
	}
	return slices.Concat(asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R0, asm.R6, lookupProtocol, asm.Word),
		asm.JNE.Imm(asm.R0, unix.IPPROTO_UDP, "pass"),
		asm.LoadMem(asm.R0, asm.R6, lookupLocalPort, asm.Word),
		asm.JNE.Imm(asm.R0, int32(port), "pass"),
	}, elsewhere, asm.Instructions{
		asm.LoadMem(asm.R7, asm.R6, lookupRemotePort, asm.Word),
		asm.StoreImm(asm.RFP, key+16, 0, asm.Word),
		asm.StoreMem(asm.RFP, key+16, asm.R7, asm.Half),
		asm.HostTo(asm.BE, asm.R7, asm.Half),
		asm.JEq.Imm(asm.R7, 0, "drop"), // no port, but the key of all privileged ones
		asm.LoadMem(asm.R0, asm.R6, lookupFamily, asm.Word),
		asm.JEq.Imm(asm.R0, unix.AF_INET6, "ip6"),
		asm.StoreImm(asm.RFP, key, 0, asm.Word),
		asm.StoreImm(asm.RFP, key+4, 0, asm.Word),
		asm.StoreImm(asm.RFP, key+8, 0, asm.Half),
		asm.StoreImm(asm.RFP, key+10, 0xffff, asm.Half),
		asm.LoadMem(asm.R0, asm.R6, lookupRemoteIP4, asm.Word),
		asm.StoreMem(asm.RFP, key+12, asm.R0, asm.Word),
		asm.Ja.Label("find"),
		asm.LoadMem(asm.R0, asm.R6, lookupRemoteIP6, asm.Word).WithSymbol("ip6"),
		asm.StoreMem(asm.RFP, key, asm.R0, asm.Word),
		asm.LoadMem(asm.R0, asm.R6, lookupRemoteIP6+4, asm.Word),
		asm.StoreMem(asm.RFP, key+4, asm.R0, asm.Word),
		asm.LoadMem(asm.R0, asm.R6, lookupRemoteIP6+8, asm.Word),
		asm.StoreMem(asm.RFP, key+8, asm.R0, asm.Word),
		asm.LoadMem(asm.R0, asm.R6, lookupRemoteIP6+12, asm.Word),
		asm.StoreMem(asm.RFP, key+12, asm.R0, asm.Word),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("find"),
	}, find, asm.Instructions{
		asm.JLT.Imm(asm.R7, FirstPrivileged, "drop"),
		asm.JGT.Imm(asm.R7, LastPrivileged, "drop"),
		asm.StoreImm(asm.RFP, key+16, 0, asm.Half),
	}, find, asm.Instructions{
		asm.Mov.Imm(asm.R0, 0).WithSymbol("drop"),
		asm.Return(), // SK_DROP
		asm.Mov.Imm(asm.R0, 1).WithSymbol("pass"),
		asm.Return(), // SK_PASS
	})
}

// allow makes senders the only ones. It adds new ones before it removes others, so that a sender in both is never refused.
func (g *gate) allow(senders []sender) error {
	next := make(map[sender]bool, len(senders))
	var errs []error
	for _, s := range senders {
		if !g.open[s] {
			if err := g.senders.Put(s.key(), []byte{1}); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		next[s] = true
	}
	for s := range g.open {
		if !next[s] {
			if err := g.senders.Delete(s.key()); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				errs = append(errs, err)
				next[s] = true // to be removed by the next call
			}
		}
	}
	g.open = next
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("vxlan: senders at the lookup of sockets: %w", err)
	}
	return nil
}

// exclude sets the interface from which no sender is let in.
func (g *gate) exclude(index int) error {
	if err := g.bridge.Put(uint32(0), uint32(index)); err != nil {
		return fmt.Errorf("vxlan: interface at the lookup of sockets: %w", err)
	}
	return nil
}

// close detaches the program.
func (g *gate) close() error {
	var errs []error
	if g.link != nil {
		errs = append(errs, g.link.Close())
	}
	if g.program != nil {
		errs = append(errs, g.program.Close())
	}
	for _, m := range []*ebpf.Map{g.senders, g.bridge} {
		if m != nil {
			errs = append(errs, m.Close())
		}
	}
	return errors.Join(errs...)
}
