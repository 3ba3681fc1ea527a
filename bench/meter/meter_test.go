package meter

import (
	"os"
	"testing"
	"time"
)

// line is a line of /proc/PID/stat for a program with spaces and a parenthesis in its name.
const line = "4242 (we ) ft) S 17 4242 4242 0 -1 4194560 1500 20 0 0 150 50 7 3 20 0 9 0 123456 1268244480 2560 18446744073709551615 " +
	"1 1 0 0 0 0 0 0 2143420159 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n"

func TestParseStat(t *testing.T) {
	got, err := parseStat([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	want := stat{parent: 17, flags: 4194560, own: 2 * time.Second, reaped: 100 * time.Millisecond, rss: 2560}
	if got != want {
		t.Errorf("parseStat = %+v, want %+v", got, want)
	}
	for _, bad := range []string{"", "1 (a", "1 (a) S 2", "1 (a) S x 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24"} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("parseStat(%q) accepted it", bad)
		}
	}
}

func TestParseMachine(t *testing.T) {
	got, err := parseMachine("cpu  100 20 30 4000 500 6 7 8 90 10\ncpu0 1 2 3\n")
	if err != nil {
		t.Fatal(err)
	}
	if want := (machine{busy: 1630 * time.Millisecond, stolen: 80 * time.Millisecond}); got != want {
		t.Errorf("parseMachine = %+v, want %+v", got, want)
	}
	for _, bad := range []string{"", "cpu 1 2", "cpu0 1 2 3 4 5 6 7 8", "cpu a 2 3 4 5 6 7 8"} {
		if _, err := parseMachine(bad); err == nil {
			t.Errorf("parseMachine(%q) accepted it", bad)
		}
	}
}

func TestOtherTimeIn(t *testing.T) {
	table := map[int]stat{
		1:  {own: time.Second, reaped: time.Second},
		2:  {flags: kernelThread, own: time.Hour},
		10: {parent: 1, own: time.Second},
		20: {parent: 10, own: time.Hour, reaped: time.Hour}, // self
		21: {parent: 20, own: time.Hour},
		22: {parent: 21, own: time.Hour},
		30: {parent: 31, own: time.Second}, // a cycle
		31: {parent: 30},
	}
	if got := otherTimeIn(table, 20); got != 4*time.Second {
		t.Errorf("otherTimeIn = %v", got)
	}
}

func TestReadThisProcess(t *testing.T) {
	pids := []int{os.Getpid()}
	first, err := Read(pids)
	if err != nil {
		t.Fatal(err)
	}
	var u Usage
	for u.Daemons <= 0 { // reading itself uses CPU time
		second, err := Read(pids)
		if err != nil {
			t.Fatal(err)
		}
		u = second.Since(first)
	}
	if u.Machine < 0 || u.Elapsed <= 0 {
		t.Errorf("usage %+v", u)
	}
	if rss, err := RSS(pids); err != nil || rss < 1<<20 {
		t.Errorf("RSS = %d, %v", rss, err)
	}
	if _, err := CPU([]int{1 << 30}); err == nil {
		t.Error("CPU of a process that does not exist returned no error")
	}
}
