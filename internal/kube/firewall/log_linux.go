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

// nfgenmsg returns the header of netfilter's messages: any family, version 0, resource.
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
	readDeadline = time.Second // how often Samples looks at its context
)

// Drop is a sample of what has been dropped.
type Drop struct {
	Direction        policy.Direction // that forbade it
	Src, Dst         netip.Addr
	Protocol         string // "TCP", "UDP", …
	SrcPort, DstPort uint16 // 0 where the protocol has none
}

// Samples calls f for samples of what is dropped, some a second at most, until ctx ends. It belongs to the network
// namespace of the calling thread; one process a namespace can have them.
func Samples(ctx context.Context, f func(Drop)) error {
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
			return fmt.Errorf("firewall: listening to log group %d: %w", LogGroup, err)
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
			return fmt.Errorf("firewall: reading the log: %w", err)
		}
		for _, m := range messages {
			if d, ok := parseDrop(m); ok {
				f(d)
			}
		}
	}
	return ctx.Err()
}

// parseDrop reads a message of the log.
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

// parsePacket reads the beginning of an IP packet.
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
