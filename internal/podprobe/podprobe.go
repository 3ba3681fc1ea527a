// Package podprobe sends frames between two hidden ports of the bridge, as two pods would, to learn whether the host's packet filters
// let them pass.
//
//	 this process                              this process
//	      | write                                   ^ read
//	TAP "weftp6783a"  -- bridge, br_netfilter, --  TAP "weftp6783b"
//	                     FORWARD chains
//
// The frames are the first segment of a TCP connection, from and to the first address of a range, which is never leased. The hardware
// address of the receiver is known on its port, and the sender is an isolated port, as are all ports that lead to other
// nodes: so a probe never leaves the host. No other frame is flooded to the two ports. The TAPs have no addresses, and vanish with
// the process.
//
// See docs/adr/0033-what-the-host-does-to-pods.md.
package podprobe

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"weft/internal/ether"
	"weft/tap"
	"weft/tap/bridge"
)

// Attempts and their timeout: a frame may be lost while a ruleset is replaced.
const (
	attempts = 3
	timeout  = 300 * time.Millisecond
)

// Hardware addresses of the probes. The bridge keeps frames to the address of an interface for the host, so probes have others than those
// of the two ports.
var (
	senderMAC   = ether.Addr{0xfe, 0x57, 0xff, 0, 0, 1}
	receiverMAC = ether.Addr{0xfe, 0x57, 0xff, 0, 0, 2}
)

// ErrWaits says that the bridge does not forward frames of its new ports yet, as for some seconds (twice the forward delay) with STP.
var ErrWaits = errors.New("podprobe: the bridge does not forward frames of new ports yet")

// Config describes a Prober.
type Config struct {
	Bridge string
	// Port distinguishes daemons of one host; it is part of the names of the ports.
	Port   int
	MTU    int // of the bridge, in bytes
	Ranges []netip.Prefix
}

// Prober owns the two ports. Its methods may be called by one goroutine; Close by any.
type Prober struct {
	cfg              Config
	sender, receiver tap.Device
	arrived          chan uint32 // numbers of the probes that arrived
	done             chan struct{}
	number           uint32 // of the last probe
}

// Result is the result of a probe of one range.
type Result struct {
	Range  netip.Prefix
	Passed bool
}

// Open makes the two ports. They join the bridge with the first probe.
func Open(cfg Config) (*Prober, error) {
	p := &Prober{cfg: cfg, arrived: make(chan uint32, 16), done: make(chan struct{})}
	var err error
	if p.sender, err = p.open("a"); err != nil {
		return nil, err
	}
	if p.receiver, err = p.open("b"); err != nil {
		return nil, errors.Join(err, p.sender.Close())
	}
	go p.receive()
	return p, nil
}

func (p *Prober) open(suffix string) (tap.Device, error) {
	name := fmt.Sprintf("%s%d%s", bridge.HiddenPrefix, p.cfg.Port, suffix)
	d, err := tap.Open(tap.Config{Name: name, MTU: p.cfg.MTU, Queues: 1, Plain: true})
	if err != nil {
		return nil, fmt.Errorf("podprobe: %w", err)
	}
	return d, nil
}

// Close removes the ports.
func (p *Prober) Close() error {
	err := errors.Join(p.sender.Close(), p.receiver.Close())
	<-p.done
	return err
}

// Probe sends a frame for each range and reports which arrive. The error says why the bridge cannot be probed now; it may be ErrWaits.
func (p *Prober) Probe(ctx context.Context) ([]Result, error) {
	if err := p.plug(); err != nil {
		return nil, err
	}
	results := make([]Result, 0, len(p.cfg.Ranges))
	for _, r := range p.cfg.Ranges {
		passed, err := p.probe(ctx, r.Masked().Addr())
		if err != nil {
			return nil, err
		}
		results = append(results, Result{r, passed})
	}
	return results, nil
}

// probe sends frames from and to an address until one arrives.
func (p *Prober) probe(ctx context.Context, addr netip.Addr) (passed bool, err error) {
	for range attempts {
		p.number++
		if _, err := p.sender.Queues()[0].WriteFrames([]tap.Frame{{Data: frame(addr, p.number)}}); err != nil {
			return false, fmt.Errorf("podprobe: %w", err)
		}
		if passed, err = p.wait(ctx, p.number); passed || err != nil {
			return passed, err
		}
	}
	return false, nil
}

// wait reports whether a probe arrives in time.
func (p *Prober) wait(ctx context.Context, number uint32) (bool, error) {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-timer.C:
			return false, nil
		case got := <-p.arrived:
			if got == number {
				return true, nil
			}
		}
	}
}

// receive reads frames until the receiver is closed.
func (p *Prober) receive() {
	defer close(p.done)
	batch := tap.NewBatch(2*tap.MaxFrame, 16, 0, 0)
	queue := p.receiver.Queues()[0]
	for {
		if err := queue.Source().Wait(); err != nil {
			return
		}
		batch.Reset()
		if _, err := queue.ReadFrames(batch); err != nil {
			return
		}
		for _, f := range batch.Frames() {
			if number, ok := numberOf(f.Data); ok {
				select {
				case p.arrived <- number:
				default: // nothing waits for it
				}
			}
		}
	}
}
