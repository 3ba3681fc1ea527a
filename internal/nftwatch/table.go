package nftwatch

import (
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/nftsum"
)

// Table names a table of nftables.
type Table struct {
	Family nftsum.Family
	Name   string
}

// tableAttribute is the attribute with the name of the table. It has this number in reports of all kinds of objects.
const tableAttribute = unix.NFTA_TABLE_NAME

// TableOf returns the table of the object that a report of a change is about. It is not ok for the report that ends a transaction, and
// for what is no such report.
func TableOf(m netlink.Message) (t Table, ok bool) {
	if uint16(m.Header.Type)>>8 != unix.NFNL_SUBSYS_NFTABLES || m.Header.Type == newGeneration || len(m.Data) < headerLen {
		return Table{}, false
	}
	attrs, err := netlink.NewAttributeDecoder(m.Data[headerLen:])
	if err != nil {
		return Table{}, false
	}
	for attrs.Next() {
		if attrs.Type() == tableAttribute {
			return Table{nftsum.Family(m.Data[0]), attrs.String()}, true
		}
	}
	return Table{}, false
}
