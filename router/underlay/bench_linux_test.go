package underlay_test

import (
	"testing"

	"weft/router/underlay"
	"weft/router/underlay/underlaytest"
)

// BenchmarkLoopback sends datagrams to itself and receives them: the 64 KiB of a superframe, and batches of small ones,
// each with all three sets of offloads.
func BenchmarkLoopback(b *testing.B) {
	for _, load := range []struct {
		name        string
		count, size int
	}{{"superframe", 45, 1458}, {"small", 128, 82}} {
		for _, way := range []struct {
			name  string
			cfg   underlay.Config
			batch int // elements a call
		}{
			{"single", underlay.Config{NoGSO: true, NoGRO: true}, 1},
			{"mmsg", underlay.Config{NoGSO: true, NoGRO: true}, load.count},
			{"gso", underlay.Config{NoGRO: true}, load.count},
			{"gso+gro", underlay.Config{}, load.count},
		} {
			b.Run(load.name+"/"+way.name, func(b *testing.B) { loopback(b, way.cfg, load.count, load.size, way.batch) })
		}
	}
}

func loopback(b *testing.B, cfg underlay.Config, count, size, each int) {
	u := listen(b, cfg)
	arena, room := make([]byte, count*size), make([]byte, 32<<16)
	out, in := make([]underlay.Datagram, count), make([]underlay.Datagram, min(each, 32))
	for i := range out {
		out[i] = underlay.Datagram{Addr: at(u, "127.0.0.1"), Buf: arena[i*size : (i+1)*size]}
	}
	for i := range in {
		in[i].Buf = room[i<<16 : (i+1)<<16]
	}
	b.SetBytes(int64(count * size))
	b.ReportAllocs()
	for b.Loop() {
		for i := 0; i < count; i += each {
			if _, err := u.WriteBatch(out[i : i+each]); err != nil {
				b.Fatal(err)
			}
		}
		for got := 0; got < count*size; {
			n, err := underlaytest.Read(u, in)
			if err != nil {
				b.Fatal(err)
			}
			for _, d := range in[:n] {
				got += len(d.Buf)
			}
		}
	}
}
