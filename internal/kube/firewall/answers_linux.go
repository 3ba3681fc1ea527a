package firewall

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"weft/internal/nflog"
)

const (
	// wholePacket is how many bytes of an answer are read: the most that the kernel copies.
	wholePacket = 0xffff - 4
	// answerBuffer holds answers while the receiver is busy, in bytes. The kernel drops those that do not fit.
	answerBuffer = 4 << 20
)

// Answers calls report for each DNS packet that the rules copy to the log group AnswerGroup, from the IP header on, until ctx ends or an
// error occurs, in the network namespace of the calling thread. It calls report from its own goroutine; the packet is borrowed until
// report returns. Packets that the kernel has no room for are lost. Only one process of a network namespace can read the group.
func (NFLog) Answers(ctx context.Context, report func(packet []byte)) error {
	c := nflog.Config{Group: AnswerGroup, Length: wholePacket, Buffer: answerBuffer, AtOnce: true}
	return readLog(ctx, c, func(p nflog.Packet) { report(p.Data) })
}

// Attributes of connections (linux/netfilter/nfnetlink_conntrack.h).
const (
	attrOriginal = 1 // CTA_TUPLE_ORIG
	attrReply    = 2 // CTA_TUPLE_REPLY
	attrIP       = 1 // CTA_TUPLE_IP
	attrSource4  = 1 // CTA_IP_V4_SRC
	attrSource6  = 3 // CTA_IP_V6_SRC
	attrProtocol = 4 // CTA_PROTOINFO
	attrTCP      = 1 // CTA_PROTOINFO_TCP
	attrState    = 1 // CTA_PROTOINFO_TCP_STATE
)

// States of TCP connections that both ends have closed, but that the kernel still tracks (linux/netfilter/nf_conntrack_tcp.h).
const (
	stateTimeWait = 7 // TCP_CONNTRACK_TIME_WAIT
	stateClose    = 8 // TCP_CONNTRACK_CLOSE
)

// Conntrack reads the kernel's table of connections, in the network namespace of the calling thread.
type Conntrack struct{}

// Connections calls visit for each connection that the kernel tracks and that is not closed: with the address of the client, and that of
// the server, which is the one behind a translated address. It holds one batch of the table in memory at a time.
func (Conntrack) Connections(visit func(client, server netip.Addr)) error {
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		request := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_CTNETLINK<<8|nl.IPCTNL_MSG_CT_GET, unix.NLM_F_DUMP)
		request.AddData(&nl.Nfgenmsg{NfgenFamily: family, Version: nl.NFNETLINK_V0})
		err := request.ExecuteIter(unix.NETLINK_NETFILTER, 0, func(message []byte) bool {
			if client, server, ok := parseConnection(message); ok {
				visit(client, server)
			}
			return true
		})
		if err != nil && !errors.Is(err, nl.ErrDumpInterrupted) { // it has changed meanwhile, as it always does
			return fmt.Errorf("firewall: read connections: %w", err)
		}
	}
	return nil
}

// parseConnection returns the sources of both directions of a connection; not ok if it is closed.
func parseConnection(message []byte) (client, server netip.Addr, ok bool) {
	if len(message) < nl.SizeofNfgenmsg {
		return client, server, false
	}
	closed := false
	attributes(message[nl.SizeofNfgenmsg:], func(kind uint16, value []byte) {
		switch kind {
		case attrOriginal:
			client = sourceOf(value)
		case attrReply:
			server = sourceOf(value)
		case attrProtocol:
			state := attribute(attribute(value, attrTCP), attrState)
			closed = len(state) > 0 && (state[0] == stateTimeWait || state[0] == stateClose)
		}
	})
	return client, server, client.IsValid() && server.IsValid() && !closed
}

// sourceOf returns the source address of a direction; invalid if it has none.
func sourceOf(tuple []byte) netip.Addr {
	addresses := attribute(tuple, attrIP)
	for _, kind := range []uint16{attrSource4, attrSource6} {
		if ip, ok := netip.AddrFromSlice(attribute(addresses, kind)); ok {
			return ip
		}
	}
	return netip.Addr{}
}

// attribute returns the value of the last attribute of a kind in b; nil if there is none.
func attribute(b []byte, kind uint16) (found []byte) {
	attributes(b, func(k uint16, value []byte) {
		if k == kind {
			found = value
		}
	})
	return found
}

// attributes calls visit for each netlink attribute in b: a header of length and type in the byte order of the host, then the value, which
// fills a multiple of four bytes.
func attributes(b []byte, visit func(kind uint16, value []byte)) {
	for len(b) >= unix.SizeofRtAttr {
		length, kind := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])
		if length < unix.SizeofRtAttr || length > len(b) {
			return
		}
		visit(kind&nl.NLA_TYPE_MASK, b[unix.SizeofRtAttr:length])
		b = b[min((length+3)&^3, len(b)):]
	}
}
