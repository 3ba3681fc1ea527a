package direct

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"

	"weft/internal/ether"
	"weft/internal/netspace"
	"weft/internal/peer"
	"weft/router/carrier"
)

// Counts implements carrier.Carrier.
func (d *Direct) Counts() (map[peer.ID]carrier.Counts, error) {
	d.setMu.Lock()
	defer d.setMu.Unlock()
	if d.ended {
		return nil, net.ErrClosed
	}
	return d.counts()
}

// counts returns what the tables have counted, with the probes. setMu is held.
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
		objects, err := conn.GetNamedObjects(&nftables.Table{Name: tableName(d.cfg.Name), Family: f})
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
	d.setMu.Lock()
	defer d.setMu.Unlock()
	if d.ended {
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
	port, err := d.nl.LinkByName(d.cfg.Name)
	if _, absent := errors.AsType[netlink.LinkNotFoundError](err); absent {
		return "", fmt.Errorf("direct: %s: %w", d.cfg.Name, carrier.ErrGone)
	} else if err != nil {
		return "", fmt.Errorf("direct: %s: %w", d.cfg.Name, err)
	}
	br, brErr := d.nl.LinkByName(d.cfg.Bridge)
	link, linkErr := d.nl.LinkByIndex(d.uplink.index)
	now, err := findUplink(d.nl, d.cfg.Local)
	switch {
	case errors.Is(err, ErrNoLink):
		return fmt.Sprintf("no interface has %s now", d.cfg.Local), nil
	case err != nil:
		return "", err
	case now != d.uplink: // what is published of it has changed
		return "", fmt.Errorf("direct: the underlay interface is another one (%s): %w", now.name, carrier.ErrGone)
	case !isUp(br, brErr) || !isUp(port, nil) || port.Attrs().MasterIndex != br.Attrs().Index:
		return fmt.Sprintf("%s is no port of %s, or one of them is down", d.cfg.Name, d.cfg.Bridge), nil
	case string(br.Attrs().HardwareAddr) != string(d.mac[:]):
		return d.cfg.Bridge + " has got another MAC address", nil // Ensure follows
	case !isUp(link, linkErr):
		return d.uplink.name + " is down", nil
	case link.Attrs().MTU < d.cfg.MTU:
		return fmt.Sprintf("%s has an MTU of %d, pods send up to %d", d.uplink.name, link.Attrs().MTU, d.cfg.MTU), nil
	}
	return d.filtered()
}

// isUp reports whether a link is there and up.
func isUp(l netlink.Link, err error) bool { return err == nil && l.Attrs().Flags&net.FlagUp != 0 }

// filtered returns whether the host drops packets that come in by another interface than those to their source would leave by: those from
// pods to addresses of the host itself would be lost, and probes do not show it (ip-sysctl.rst, rp_filter).
func (d *Direct) filtered() (why string, err error) {
	if !d.own.probe(ip4).IsValid() {
		return "", nil
	}
	mode := 0
	err = netspace.Do(d.ns, func() error {
		for _, name := range []string{"all", d.uplink.name} { // the higher one counts
			text, err := os.ReadFile("/proc/sys/net/ipv4/conf/" + name + "/rp_filter")
			if err != nil {
				return fmt.Errorf("direct: %w", err)
			}
			n, err := strconv.Atoi(strings.TrimSpace(string(text)))
			if err != nil {
				return fmt.Errorf("direct: rp_filter of %s: %w", name, err)
			}
			mode = max(mode, n)
		}
		return nil
	})
	if err != nil || mode != 1 {
		return "", err
	}
	return fmt.Sprintf("the host drops packets of peers' pods to its own addresses: set net.ipv4.conf.%s.rp_filter=2", d.uplink.name), nil
}
