package flows

import (
	"testing"

	"pgregory.net/rapid"
)

func keyNumber(n int) (k Key) {
	k.Ports.Source = uint16(n)
	return k
}

// TestTable: no flow gets more than it had; a flow with more than 1/size of all bytes is in the table and lacks at most that part; and
// while the flows fit the table, all counts are exact.
func TestTable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(1, 16).Draw(t, "size")
		distinct := rapid.IntRange(1, 40).Draw(t, "flows")
		table, exact, all := newTable(size), map[Key]Traffic{}, uint64(0)
		for range rapid.IntRange(0, 300).Draw(t, "frames") {
			k := keyNumber(rapid.IntRange(0, distinct-1).Draw(t, "flow"))
			n := Traffic{1, uint64(rapid.IntRange(1, 2000).Draw(t, "bytes"))}
			table.add(k, n)
			sum := exact[k]
			sum.add(n)
			exact[k] = sum
			all += n.Bytes
		}
		got := map[Key]Traffic{}
		last := ^uint64(0)
		for _, f := range table.take() {
			got[f.Key] = f.Traffic
			if f.Bytes > last {
				t.Fatalf("%d bytes after %d", f.Bytes, last)
			}
			last = f.Bytes
			if want := exact[f.Key]; f.Bytes > want.Bytes || f.Frames > want.Frames {
				t.Fatalf("%+v of %+v", f.Traffic, want)
			}
		}
		bound := all / uint64(size)
		for k, want := range exact {
			have, found := got[k]
			if want.Bytes > bound && !found || found && have.Bytes+bound < want.Bytes {
				t.Fatalf("flow %d: %+v of %+v, the bound is %d", k.Ports.Source, have, want, bound)
			}
			if len(exact) <= size && have != want {
				t.Fatalf("flow %d: %+v, want %+v", k.Ports.Source, have, want)
			}
		}
		if len(table.take()) != 0 {
			t.Fatal("the table is not empty after take")
		}
	})
}

func TestTrafficOf(t *testing.T) {
	for _, c := range []struct {
		length, header, segment int
		want                    Traffic
	}{
		{1514, 54, 0, Traffic{1, 1514}},
		{54 + 1000, 54, 1384, Traffic{1, 1054}},
		{54 + 1384, 54, 1384, Traffic{1, 1438}},
		{54 + 1385, 54, 1384, Traffic{2, 1385 + 2*54}},
		{54 + 60000, 54, 1350, Traffic{45, 60000 + 45*54}},
		{10, 54, 1350, Traffic{1, 10}},
	} {
		if got := trafficOf(c.length, c.header, c.segment); got != c.want {
			t.Errorf("%+v: %+v", c, got)
		}
	}
}
