package meter

import (
	"os"
	"slices"
	"sync"
	"time"
)

// RSS returns the resident memory of the largest of the processes, in bytes; 0 if there are none.
func RSS(pids []int) (int64, error) {
	var largest int64
	for _, pid := range pids {
		s, err := readStat(pid)
		if err != nil {
			return 0, err
		}
		largest = max(largest, s.rss*int64(os.Getpagesize()))
	}
	return largest, nil
}

// WatchRSS reads RSS at regular intervals, until the caller calls stop, which returns the readings in order. A reading that fails is
// left out.
func WatchRSS(pids []int, every time.Duration) (stop func() []int64) {
	done := make(chan struct{})
	var readings []int64
	var running sync.WaitGroup
	running.Go(func() {
		ticks := time.NewTicker(every)
		defer ticks.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticks.C:
				if rss, err := RSS(pids); err == nil {
					readings = append(readings, rss)
				}
			}
		}
	})
	return func() []int64 {
		close(done)
		running.Wait()
		return readings
	}
}

// Growth returns the difference between the medians of the last and of the second quarter of readings. ok is false if these are too few:
// their start would count.
func Growth(readings []int64) (bytes int64, ok bool) {
	const least = 40
	quarter := len(readings) / 4
	if len(readings) < least {
		return 0, false
	}
	median := func(part []int64) int64 { return slices.Sorted(slices.Values(part))[len(part)/2] }
	return median(readings[len(readings)-quarter:]) - median(readings[quarter:2*quarter]), true
}
