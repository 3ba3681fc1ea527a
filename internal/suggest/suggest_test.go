package suggest

import (
	"math/rand/v2"
	"testing"
)

func TestNearest(t *testing.T) {
	commands := []string{"attach", "connect", "detach", "expose", "forget", "peers", "reclaim", "reload", "report", "status", "up", "wait"}
	for _, tt := range []struct{ word, want string }{
		{"pears", "peers"},
		{"stat", "status"}, // its beginning
		{"STATUS", "status"},
		{"conect", "connect"},
		{"rleoad", "reload"}, // swapped letters
		{"pu", "up"},
		{"detatch", "detach"},
		{"tcpdump", ""},
		{"x", ""},
		{"", ""},
	} {
		if got, ok := Nearest(tt.word, commands); got != tt.want || ok != (tt.want != "") {
			t.Errorf("%q: %q, want %q", tt.word, got, tt.want)
		}
	}
	if got, _ := Nearest("WEFT_MUT", []string{"WEFT_NAME", "WEFT_MTU"}); got != "WEFT_MTU" {
		t.Errorf("WEFT_MUT: %q", got)
	}
}

// TestDistance: the distance is symmetric, zero for equal words only, and at most the number of edits that were made.
func TestDistance(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // a test
	word := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = 'a' + byte(r.IntN(3))
		}
		return string(b)
	}
	for range 2000 {
		a := word(r.IntN(8))
		b := a
		edits := r.IntN(4)
		for range edits {
			i := r.IntN(len(b) + 1)
			if b == "" || r.IntN(2) == 0 {
				b = b[:i] + word(1) + b[i:]
			} else {
				i = r.IntN(len(b))
				b = b[:i] + b[i+1:]
			}
		}
		d := distance(a, b)
		if d != distance(b, a) || (d == 0) != (a == b) || d > edits {
			t.Fatalf("distance(%q, %q) = %d after %d edits", a, b, d, edits)
		}
	}
}
