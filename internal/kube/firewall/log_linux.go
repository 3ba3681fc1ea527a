package firewall

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/kube/policy"
)

var bigEndian = binary.BigEndian

// nfgenmsg returns struct nfgenmsg, the header of netfilter messages: address family unspecified, version 0, resource.
func nfgenmsg(resource uint16) []byte {
	return bigEndian.AppendUint16([]byte{unix.AF_UNSPEC, 0}, resource)
}

// Messages and attributes of nfnetlink_log (linux/netfilter/nfnetlink_log.h).
const (
	logPacket    = netlink.HeaderType(unix.NFNL_SUBSYS_ULOG << 8)
	logConfig    = netlink.HeaderType(unix.NFNL_SUBSYS_ULOG<<8 | 1)
	attrPayload  = 9  // NFULA_PAYLOAD
	attrPrefix   = 10 // NFULA_PREFIX
	configCmd    = 1  // NFULA_CFG_CMD
	configMode   = 2  // NFULA_CFG_MODE
	cmdBind      = 1  // NFULNL_CFG_CMD_BIND
	copyPacket   = 2  // NFULNL_COPY_PACKET
	copyBytes    = 128
	readDeadline = time.Second // Samples checks its context at least this often
)

// Drop describes one dropped packet.
type Drop struct {
	Direction        policy.Direction // of the policies that dropped it
	Src, Dst         netip.Addr
	Protocol         string // "TCP", "UDP", …
	SrcPort, DstPort uint16 // 0 where the protocol has none
}

// NFLog reads samples of dropped packets from the kernel's log group LogGroup, in the network namespace of the calling thread.
// Only one process of a network namespace can read the group.
type NFLog struct{}

// Samples calls report for each sample, at most some a second, until ctx ends or an error occurs. It calls report from its own
// goroutine, and misses samples while report blocks.
func (NFLog) Samples(ctx context.Context, report func(Drop)) error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return fmt.Errorf("firewall: netlink: %w", err)
	}
	defer func() { _ = conn.Close() }()
	mode := append(bigEndian.AppendUint32(nil, copyBytes), copyPacket, 0)
	for _, attr := range []netlink.Attribute{{Type: configCmd, Data: []byte{cmdBind}}, {Type: configMode, Data: mode}} {
		data, err := netlink.MarshalAttributes([]netlink.Attribute{attr})
		if err != nil {
			return fmt.Errorf("firewall: log group: %w", err)
		}
		if _, err := conn.Execute(netlink.Message{
			Header: netlink.Header{Type: logConfig, Flags: netlink.Request | netlink.Acknowledge},
			Data:   append(nfgenmsg(LogGroup), data...),
		}); err != nil {
			return fmt.Errorf("firewall: bind log group %d: %w", LogGroup, err)
		}
	}
	for ctx.Err() == nil {
		if err := conn.SetReadDeadline(time.Now().Add(readDeadline)); err != nil {
			return fmt.Errorf("firewall: %w", err)
		}
		messages, err := conn.Receive()
		if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, unix.ENOBUFS) {
			continue
		} else if err != nil {
			return fmt.Errorf("firewall: read log group: %w", err)
		}
		for _, m := range messages {
			if d, ok := parseDrop(m); ok {
				report(d)
			}
		}
	}
	return ctx.Err()
}

// parseDrop decodes a message of the log group; not ok if it contains no IP packet.
func parseDrop(m netlink.Message) (d Drop, ok bool) {
	header := len(nfgenmsg(0))
	if m.Header.Type != logPacket || len(m.Data) < header {
		return d, false
	}
	attrs, err := netlink.NewAttributeDecoder(m.Data[header:])
	if err != nil {
		return d, false
	}
	for attrs.Next() {
		switch attrs.Type() {
		case attrPrefix:
			d.Direction = policy.Ingress
			if strings.HasPrefix(attrs.String(), policy.Egress.String()) {
				d.Direction = policy.Egress
			}
		case attrPayload:
			ok = d.parsePacket(attrs.Bytes())
		}
	}
	return d, ok && attrs.Err() == nil
}

// parsePacket decodes the headers of an IP packet that may be cut off; false if there is no IP header.
func (d *Drop) parsePacket(b []byte) bool {
	if len(b) == 0 {
		return false
	}
	first := gopacket.Decoder(layers.LayerTypeIPv4)
	if b[0]>>4 == 6 {
		first = layers.LayerTypeIPv6
	}
	packet := gopacket.NewPacket(b, first, gopacket.DecodeOptions{Lazy: true, NoCopy: true})
	switch ip := packet.NetworkLayer().(type) {
	case *layers.IPv4:
		d.Src, d.Dst, d.Protocol = addrOf(ip.SrcIP), addrOf(ip.DstIP), ip.Protocol.String()
	case *layers.IPv6:
		d.Src, d.Dst, d.Protocol = addrOf(ip.SrcIP), addrOf(ip.DstIP), ip.NextHeader.String()
	default:
		return false
	}
	switch t := packet.TransportLayer().(type) {
	case *layers.TCP:
		d.SrcPort, d.DstPort = uint16(t.SrcPort), uint16(t.DstPort)
	case *layers.UDP:
		d.SrcPort, d.DstPort = uint16(t.SrcPort), uint16(t.DstPort)
	case *layers.SCTP:
		d.SrcPort, d.DstPort = uint16(t.SrcPort), uint16(t.DstPort)
	}
	return true
}

func addrOf(ip []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
