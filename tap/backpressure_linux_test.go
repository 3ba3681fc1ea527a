package tap_test

import (
	"testing"

	"weft/tap"
	"weft/tap/taptest"
)

// TestBackpressure: a writer that has to wait because the host's queue is full continues when the queue has space,
// although no frame is read from the device, which would wake the writer.
func TestBackpressure(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			taptest.InNamespace(t)
			d := open(t, tap.Config{Name: "wd-tap", MTU: 1500, Queues: 1, Plain: kind.plain})
			q := d.Queues()[0]
			if err := tap.LimitWrites(q, 1); err != nil {
				t.Fatal(err)
			}
			f := make([]byte, 1500)
			copy(f, []byte{0x0a, 0, 0, 0, 0, 1, 0x0a, 1, 1, 1, 1, 1, 0x88, 0xb5})
			frames := make([]tap.Frame, 64)
			for i := range frames {
				frames[i].Data = f
			}
			for range 500 {
				if n, err := q.WriteFrames(frames); n != len(frames) || err != nil {
					t.Fatalf("WriteFrames = %d, %v", n, err)
				}
			}
		})
	}
}
