package meter

import (
	"os"
	"testing"
	"time"
)

func TestGrowth(t *testing.T) {
	for name, test := range map[string]struct {
		readings []int64
		want     int64
		ok       bool
	}{
		"none":                 {nil, 0, false},
		"too few":              {[]int64{1, 2, 3}, 0, false},
		"flat after the start": {[]int64{1, 5, 30, 30, 30, 30, 30, 30}, 0, true},
		"grows":                {[]int64{10, 10, 10, 20, 20, 20, 30, 30, 30, 40, 40, 40}, 20, true},
		"one odd reading":      {[]int64{10, 10, 10, 20, 90, 20, 30, 30, 30, 20, 20, 90}, 0, true},
		"shrinks":              {[]int64{4, 3, 2, 1}, -2, true},
	} {
		if got, ok := Growth(test.readings); got != test.want || ok != test.ok {
			t.Errorf("%s: Growth(%v) = %d, %t, want %d, %t", name, test.readings, got, ok, test.want, test.ok)
		}
	}
}

func TestWatchRSS(t *testing.T) {
	stop := WatchRSS([]int{os.Getpid()}, time.Hour)
	if got := stop(); len(got) != 0 {
		t.Errorf("%d readings before the first interval has passed", len(got))
	}
}
