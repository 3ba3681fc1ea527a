package firewall

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"weft/internal/kube/policy"
	"weft/internal/nflog"
)

// copyBytes is how many bytes of a packet are read.
const copyBytes = 128

// readDeadline is how often readLog looks at its context, at least.
const readDeadline = time.Second

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
	return readLog(ctx, nflog.Config{Group: LogGroup, Length: copyBytes}, func(p nflog.Packet) {
		if d, ok := parseDrop(p); ok {
			report(d)
		}
	})
}

// readLog calls visit for each packet of a log group until ctx ends or an error occurs.
func readLog(ctx context.Context, c nflog.Config, visit func(nflog.Packet)) error {
	conn, err := nflog.Open(c)
	if err != nil {
		return fmt.Errorf("firewall: %w", err)
	}
	defer func() { _ = conn.Close() }()
	for ctx.Err() == nil {
		if err := conn.SetReadDeadline(time.Now().Add(readDeadline)); err != nil {
			return fmt.Errorf("firewall: %w", err)
		}
		packets, err := conn.Receive()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		} else if err != nil {
			return fmt.Errorf("firewall: %w", err)
		}
		for _, p := range packets {
			visit(p)
		}
	}
	return ctx.Err()
}

// parseDrop decodes a packet of the log group; not ok if it contains no IP packet.
func parseDrop(p nflog.Packet) (d Drop, ok bool) {
	d.Direction = policy.Ingress
	if strings.HasPrefix(p.Prefix, policy.Egress.String()) {
		d.Direction = policy.Egress
	}
	return d, d.parsePacket(p.Data)
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
