package virtio

import (
	"math/rand/v2"
	"testing"
)

func TestSum(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for n := range 300 {
		for _, fill := range []int{0, 0xff, -1} {
			b := make([]byte, n)
			var want uint32
			for i := range b {
				b[i] = byte(fill)
				if fill < 0 {
					b[i] = byte(rng.Uint32())
				}
				want += uint32(b[i]) << (8 * (1 - i%2))
			}
			for want > 0xffff {
				want = want>>16 + want&0xffff
			}
			if got := sum(b); got != uint16(want) {
				t.Fatalf("%d bytes of %d: %#x, want %#x", n, fill, got, want)
			}
		}
	}
}

func BenchmarkChecksum(b *testing.B) {
	for _, size := range []struct {
		name string
		n    int
	}{{"20", 20}, {"1400", 1400}, {"64K", 65536}} {
		b.Run(size.name, func(b *testing.B) {
			data := make([]byte, size.n)
			b.SetBytes(int64(size.n))
			for b.Loop() {
				sum(data)
			}
		})
	}
}
