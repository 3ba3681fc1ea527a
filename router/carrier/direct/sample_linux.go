package direct

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"

	"weft/internal/ether"
	"weft/internal/peer"
	"weft/router/carrier"
)

// Counts implements carrier.Carrier.
func (d *Direct) Counts() (map[peer.ID]carrier.Counts, error) {
	d.alive.RLock()
	defer d.alive.RUnlock()
	if d.closed {
		return nil, net.ErrClosed
	}
	return d.counts()
}

// counts returns what the tables have counted, with the probes. alive is held.
func (d *Direct) counts() (map[peer.ID]carrier.Counts, error) {
	conn, err := nftables.New(nftables.WithNetNSFd(int(d.ns)))
	if err != nil {
		return nil, fmt.Errorf("direct: read the counters of peers: %w", err)
	}
	d.mu.Lock()
	sums := make(map[peer.ID]carrier.Counts, len(d.targets))
	for id := range d.targets {
		sums[id] = d.probes[id]
	}
	d.mu.Unlock()
	for _, f := range []nftables.TableFamily{nftables.TableFamilyBridge, nftables.TableFamilyINet} {
		objects, err := conn.GetNamedObjects(&nftables.Table{Name: tableName(d.cfg.Table), Family: f})
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // another program has removed the table: it is restored soon
			return nil, fmt.Errorf("direct: read the counters of peers: %w", err)
		}
		for _, o := range objects {
			if named, ok := o.(*nftables.NamedObj); ok {
				addCounter(sums, named)
			}
		}
	}
	return sums, nil
}

// addCounter adds what a counter has to the sums of its peer. It counts packets, and the sums are those of frames.
func addCounter(sums map[peer.ID]carrier.Counts, o *nftables.NamedObj) {
	name, sent := strings.CutPrefix(o.Name, toPrefix)
	if !sent {
		name = strings.TrimPrefix(name, fromPrefix)
	}
	c, counts := o.Obj.(*expr.Counter)
	id, err := peer.ParseID(name)
	sum, known := sums[id]
	if !counts || err != nil || !known {
		return
	}
	bytes := c.Bytes + c.Packets*ether.HeaderLen
	if sent {
		sum.TxFrames, sum.TxBytes = sum.TxFrames+c.Packets, sum.TxBytes+bytes
	} else {
		sum.RxFrames, sum.RxBytes = sum.RxFrames+c.Packets, sum.RxBytes+bytes
	}
	sums[id] = sum
}

// Sample implements carrier.Carrier.
func (d *Direct) Sample() (s carrier.Sample, err error) {
	d.alive.RLock()
	defer d.alive.RUnlock()
	if d.closed {
		return s, net.ErrClosed
	}
	if s.Why, err = d.obstacle(); err != nil {
		return s, err
	}
	s.Ready, s.BadProbes = s.Why == "", d.bad.Load()
	counts, err := d.counts()
	if err != nil {
		return s, err
	}
	for _, c := range counts {
		s.RxFrames, s.RxBytes, s.TxFrames, s.TxBytes = s.RxFrames+c.RxFrames, s.RxBytes+c.RxBytes, s.TxFrames+c.TxFrames, s.TxBytes+c.TxBytes
	}
	s.Frames = s.RxFrames + s.TxFrames
	return s, nil
}

// obstacle returns why nothing can be carried now; empty: nothing is in the way. The error wraps carrier.ErrGone if the port for probes was
// deleted.
func (d *Direct) obstacle() (string, error) {
	port, err := d.nl.LinkByName(d.port.Name())
	if _, absent := errors.AsType[netlink.LinkNotFoundError](err); absent {
		return "", fmt.Errorf("direct: %s: %w", d.port.Name(), carrier.ErrGone)
	} else if err != nil {
		return "", fmt.Errorf("direct: %s: %w", d.port.Name(), err)
	}
	br, brErr := d.nl.LinkByName(d.cfg.Bridge)
	now, err := findUplink(d.nl, d.cfg.Local)
	d.mu.Lock()
	mac := d.mac
	d.mu.Unlock()
	switch {
	case !isUp(br, brErr) || !isUp(port, nil) || port.Attrs().MasterIndex != br.Attrs().Index:
		return fmt.Sprintf("%s is no port of %s, or one of them is down", d.port.Name(), d.cfg.Bridge), nil
	case string(br.Attrs().HardwareAddr) != string(mac[:]):
		return d.cfg.Bridge + " has got another MAC address", nil // Ensure follows
	case errors.Is(err, ErrNoLink):
		return fmt.Sprintf("no interface has %s now", d.cfg.Local), nil
	case err != nil:
		return "", err
	case now.index != d.uplink.index || now.name != d.uplink.name:
		return "", fmt.Errorf("direct: %s is on another interface (%s): %w", d.cfg.Local, now.name, carrier.ErrGone)
	case !now.up:
		return now.name + " is down", nil
	case now.mtu < d.cfg.MTU:
		return fmt.Sprintf("%s has an MTU of %d, pods send up to %d", now.name, now.mtu, d.cfg.MTU), nil
	}
	return "", nil
}

// isUp reports whether a link is there and up.
func isUp(l netlink.Link, err error) bool { return err == nil && l.Attrs().Flags&net.FlagUp != 0 }
