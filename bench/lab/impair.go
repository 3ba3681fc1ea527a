package lab

import (
	"context"
	"fmt"
	"net"
	"strings"
)

// lossTable drops at random what the switch forwards. It is in the switch's namespace, so that neither end's sending
// socket learns of the loss.
const lossTable = `table bridge benchloss {
	chain forward {
		type filter hook forward priority -10;
		%s numgen random mod 1000 < %d counter drop;
	}
}
`

// Lose makes the underlay drop so many of 1,000 IPv4 packets, in both directions: all, or only UDP. 0 ends it. It counts
// packets as they pass the switch, so it takes Plain to make that datagrams and not batches of them.
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

// Limit bounds what each end sends to so many Mbit/s, with up to 5 ms of queue. 0 ends it.
func (l *Lab) Limit(ctx context.Context, mbits int) error {
	for _, h := range l.Ends {
		// Removing what is not there fails; there is nothing to say about it.
		_, _ = h.Run(ctx, "tc", "qdisc", "del", "dev", underlayIf, "root")
		if mbits <= 0 {
			continue
		}
		// The burst is what passes in a millisecond, but no less than a batch of packets that comes whole.
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

// Plain makes the hosts' interfaces like a network card without segmentation offloads: what is sent is cut into packets of the
// MTU first, and put together on arrival (GRO). Without it a veth hands batches of up to 64 KB over whole, a
// ride that no wire gives.
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

// IsPlain returns what Plain was told last.
func (l *Lab) IsPlain() bool { return l.plain }

// plainPorts does to the ports of the switch, whose namespace the calling thread is in, what Plain does to the hosts: a veth
// puts together only what comes from a peer that could not have sent it whole. The switch itself puts nothing together, or it
// would lose batches and not packets.
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
