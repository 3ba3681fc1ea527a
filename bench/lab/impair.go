package lab

import (
	"context"
	"fmt"
	"net"
	"strings"
)

// lossTable drops packets at random as the switch forwards them. It is in the switch's namespace, so that sending sockets
// do not see the loss.
const lossTable = `table bridge benchloss {
	chain forward {
		type filter hook forward priority -10;
		%s numgen random mod 1000 < %d counter drop;
	}
}
`

// Lose makes the underlay drop perMille of 1,000 IPv4 packets in both directions, or of UDP packets only. 0 ends the loss.
// A packet here is what passes the switch: call Plain first, or it may be a batch of datagrams.
func (l *Lab) Lose(ctx context.Context, perMille int, onlyUDP bool) error {
	match := "ether type ip"
	if onlyUDP {
		match += " ip protocol udp"
	}
	script := "table bridge benchloss\ndelete table bridge benchloss\n"
	if perMille > 0 {
		script += fmt.Sprintf(lossTable, match, perMille)
	}
	cmd := l.Switch().Command(ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("lab: loss: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Limit limits the sending rate of each end to mbits Mbit/s, with a queue of at most 5 ms. 0 removes the limit.
func (l *Lab) Limit(ctx context.Context, mbits int) error {
	for _, h := range l.Ends {
		// This fails if there is no limit yet, which is not an error.
		_, _ = h.Run(ctx, "tc", "qdisc", "del", "dev", underlayIf, "root")
		if mbits <= 0 {
			continue
		}
		// The burst is a millisecond of traffic, but at least the size of a batch (64 KB), which the veth sends as one packet.
		burst := max(mbits*1000/8, 70_000)
		if _, err := h.Run(ctx, "tc", "qdisc", "add", "dev", underlayIf, "root", "tbf",
			"rate", fmt.Sprintf("%dmbit", mbits), "burst", fmt.Sprint(burst), "latency", "5ms"); err != nil {
			return fmt.Errorf("lab: rate: %w", err)
		}
	}
	return nil
}

// underlayIf is the interface of each host.
const underlayIf = "eth0"

// Plain makes the hosts' interfaces behave like a network card without segmentation offloads: packets are segmented to
// the MTU before they are sent, and coalesced on arrival (GRO). Without it, a veth passes batches of up to 64 KB as one
// packet, which no physical link does.
func (l *Lab) Plain(ctx context.Context, plain bool) error {
	for _, h := range l.Ends {
		if err := h.Do(func() error { return setFeatures(underlayIf, plainFeature(plain, plain)) }); err != nil {
			return fmt.Errorf("lab: %w", err)
		}
	}
	if err := l.Switch().Do(func() error { return plainPorts(plain) }); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	l.plain = plain
	return nil
}

// IsPlain returns the argument of the last call of Plain.
func (l *Lab) IsPlain() bool { return l.plain }

// plainPorts does for the ports of the switch what Plain does for the hosts; the calling thread must be in the namespace
// of the switch. This is necessary because a veth coalesces only packets from a peer that cannot send batches. The ports
// themselves do not coalesce, because then Lose would drop batches instead of packets.
func plainPorts(plain bool) error {
	all, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, i := range all {
		if strings.HasPrefix(i.Name, "port") {
			if err := setFeatures(i.Name, plainFeature(plain, false)); err != nil {
				return err
			}
		}
	}
	return nil
}
