package hostnet_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/internal/hostnet"
)

// TestNeighborTables: counters of all CPUs are added, a family that the kernel lacks is missing, and so is all in the namespace of a pod.
func TestNeighborTables(t *testing.T) {
	proc := t.TempDir()
	if list, err := hostnet.NeighborTables(proc); err != nil || len(list) != 0 {
		t.Errorf("in the namespace of a pod: %+v, %v", list, err)
	}
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(proc, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("sys/net/ipv4/neigh/default/gc_thresh3", "1024\n")
	write("net/stat/arp_cache", "entries  allocs   unresolved_discards table_fulls\n"+
		"000003ff 0000622a 00000057            00000010\n000003ff 00006441 00000000            0000000a\n")
	list, err := hostnet.NeighborTables(proc)
	if diff := cmp.Diff([]hostnet.NeighborTable{{Family: "ipv4", Entries: 1023, Limit: 1024, Overflows: 26}}, list); diff != "" || err != nil {
		t.Errorf("%v, (-want +got):\n%s", err, diff)
	}
	write("net/stat/arp_cache", "entries table_fulls\nxyz 0\n")
	if _, err := hostnet.NeighborTables(proc); err == nil {
		t.Error("a damaged file is accepted")
	}
	if _, err := hostnet.NeighborTables("/proc"); err != nil {
		t.Error(err)
	}
}
