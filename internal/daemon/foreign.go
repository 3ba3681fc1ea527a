package daemon

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"weft/mesh"
)

// onFounded is called by ipam when a range has been divided.
func (d *Daemon) onFounded() {
	d.tellFoundings()
	d.orphans.again()
}

// tellFoundings has the mesh tell how the ranges were divided, so that nodes of another network are told apart.
func (d *Daemon) tellFoundings() {
	var list []mesh.ClusterID
	for cidr, founding := range d.ipam.ClusterIDs() {
		sum := sha256.Sum256([]byte(cidr.String()))
		list = append(list, mesh.ClusterID{Range: binary.BigEndian.Uint32(sum[:]), By: binary.BigEndian.Uint32(founding[:])})
	}
	slices.SortFunc(list, func(a, b mesh.ClusterID) int {
		return bytes.Compare(binary.BigEndian.AppendUint32(nil, a.Range), binary.BigEndian.AppendUint32(nil, b.Range))
	})
	d.mesh.SetClusterIDs(list)
}

// isForeign reports whether a target was not joined as it belongs to another network. memberlist keeps only the text of errors.
func isForeign(err error) bool {
	return err != nil && (errors.Is(err, mesh.ErrClusterMismatch) || strings.Contains(err.Error(), mesh.ErrClusterMismatch.Error()))
}

// foreignWarnings returns what an operator should know of another network that this one has met.
func (d *Daemon) foreignWarnings() []string {
	foreigners := d.mesh.ClusterMismatches()
	if len(foreigners) == 0 {
		return nil
	}
	var names []string
	for _, f := range foreigners {
		names = append(names, fmt.Sprintf("%s (%s at %s)", f.Name, f.ID, f.Addr))
	}
	return []string{fmt.Sprintf("Another network was met, whose %s was divided apart from that of this one (%s): %s. Neither takes the other in, as "+
		"pods of both may have the same addresses. To join them, stop the nodes of one, move their ipam.db away, and start them again; to keep "+
		"them apart, \"weft forget\" the target, or give them different secrets.", ranges(d.cfg.Ranges), d.cfg.Name, shortList(names))}
}

// ranges returns ranges as text.
func ranges(list []netip.Prefix) string {
	texts := make([]string, len(list))
	for i, r := range list {
		texts[i] = r.String()
	}
	return strings.Join(texts, " and ")
}

// shortList writes names with commas between, the first eight of them.
func shortList(names []string) string {
	const most = 8
	if n := len(names); n > most {
		names = append(names[:most:most], fmt.Sprintf("and %d more", n-most))
	}
	return strings.Join(names, ", ")
}
