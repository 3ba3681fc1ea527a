package meter

import (
	"os"
	"testing"
	"time"
)

func TestGrowth(t *testing.T) {
	// ten returns ten readings for each value.
	ten := func(values ...int64) (readings []int64) {
		for _, v := range values {
			for range 10 {
				readings = append(readings, v)
			}
		}
		return readings
	}
	odd := ten(10, 20, 30, 20)
	odd[12], odd[39] = 90, 90
	for name, test := range map[string]struct {
		readings []int64
		want     int64
		ok       bool
	}{
		"none":                 {nil, 0, false},
		"too few":              {ten(1, 2, 3), 0, false},
		"flat after the start": {ten(1, 30, 30, 30), 0, true},
		"grows":                {ten(10, 20, 30, 40), 20, true},
		"odd readings":         {odd, 0, true},
		"shrinks":              {ten(4, 3, 2, 1), -2, true},
	} {
		if got, ok := Growth(test.readings); got != test.want || ok != test.ok {
			t.Errorf("%s: Growth = %d, %t, want %d, %t", name, got, ok, test.want, test.ok)
		}
	}
}

func TestWatchRSS(t *testing.T) {
	stop := WatchRSS([]int{os.Getpid()}, time.Hour)
	if got := stop(); len(got) != 0 {
		t.Errorf("%d readings before the first interval has passed", len(got))
	}
}
