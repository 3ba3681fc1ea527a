package hostnet

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// NeighborTable is the kernel's table of neighbors of an address family (ARP, neighbor discovery). It holds those of all network
// namespaces: of the host and of all its pods together.
type NeighborTable struct {
	Family string // "ipv4" or "ipv6", as in the names of settings
	// Entries is how many neighbors it has. Limit is the most that it takes, without permanent ones.
	Entries, Limit int
	// Overflows counts the neighbors for which it had no room, since the boot.
	Overflows uint64
}

// Setting returns the name of the setting of the limit.
func (t NeighborTable) Setting() string { return "net." + t.Family + ".neigh.default.gc_thresh3" }

// neighborStats are the files with the counters of the tables, below /proc/net/stat.
var neighborStats = map[string]string{"ipv4": "arp_cache", "ipv6": "ndisc_cache"}

// NeighborTables reads the tables. proc is /proc. Only the network namespace of the host shows them: elsewhere there are none. A table that
// the kernel does not have is missing.
func NeighborTables(proc string) (list []NeighborTable, err error) {
	for _, family := range []string{"ipv4", "ipv6"} {
		stats, err := os.ReadFile(filepath.Join(proc, "net/stat", neighborStats[family]))
		if os.IsNotExist(err) {
			continue
		} else if err != nil {
			return nil, fmt.Errorf("hostnet: %w", err)
		}
		limit, err := os.ReadFile(filepath.Join(proc, "sys/net", family, "neigh/default/gc_thresh3"))
		if os.IsNotExist(err) {
			continue
		} else if err != nil {
			return nil, fmt.Errorf("hostnet: %w", err)
		}
		t := NeighborTable{Family: family}
		if t.Limit, err = strconv.Atoi(strings.TrimSpace(string(limit))); err != nil {
			return nil, fmt.Errorf("hostnet: %s: %w", t.Setting(), err)
		}
		if err := t.read(string(stats)); err != nil {
			return nil, fmt.Errorf("hostnet: the statistics of neighbors (%s): %w", family, err)
		}
		list = append(list, t)
	}
	return list, nil
}

// read reads a file of counters: a line with their names, and one with hexadecimal numbers for each CPU. The number of entries is that of
// the table in each line.
func (t *NeighborTable) read(stats string) error {
	names, rows, _ := strings.Cut(stats, "\n")
	for row := range strings.Lines(rows) {
		values := strings.Fields(row)
		for i, name := range strings.Fields(names) {
			if i >= len(values) || name != "entries" && name != "table_fulls" {
				continue
			}
			n, err := strconv.ParseUint(values[i], 16, 32)
			if err != nil {
				return err
			}
			if name == "entries" {
				t.Entries = int(n)
			} else {
				t.Overflows += n
			}
		}
	}
	return nil
}
