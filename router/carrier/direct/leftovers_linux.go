package direct

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Remove removes what earlier runs have left on the host, whatever their tables were. What belongs to another process, which has its port,
// stays.
func Remove(ctx context.Context) error {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("direct: netlink: %w", err)
	}
	defer nl.Close()
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("direct: nftables: %w", err)
	}
	left := func(table int) bool {
		if table <= 0 || table > 1<<16-1 || table >= tableDefault && table <= tableLocal {
			return false
		}
		_, err := nl.LinkByName(PortName(uint16(table)))
		_, absent := errors.AsType[netlink.LinkNotFoundError](err)
		return absent
	}
	var errs []error
	for _, f := range []nftables.TableFamily{nftables.TableFamilyBridge, nftables.TableFamilyINet} {
		tables, err := conn.ListTablesOfFamily(f)
		if err != nil && !slices.ContainsFunc(noNFTables, func(e unix.Errno) bool { return errors.Is(err, e) }) {
			errs = append(errs, fmt.Errorf("direct: list the tables of nftables: %w", err))
		}
		for _, t := range tables {
			if table, ours := tableOf(t.Name); ours && left(int(table)) {
				errs = append(errs, removeTables(ctx, table))
			}
		}
	}
	return errors.Join(append(errs, routes{nl: nl}.remove(left))...)
}

// noNFTables are the errors of a kernel without nftables, or without a family of it: there can be no tables.
var noNFTables = []unix.Errno{unix.EINVAL, unix.EPROTONOSUPPORT, unix.EOPNOTSUPP, unix.EAFNOSUPPORT}

// removeTables removes both tables of a carrier with a routing table.
func removeTables(ctx context.Context, table uint16) error {
	r, err := openRules(Config{Table: table})
	if err != nil {
		return err
	}
	return r.remove(ctx)
}
