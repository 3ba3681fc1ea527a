package lab

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/internal/nettest/labtest"
)

func TestShares(t *testing.T) {
	for _, c := range []struct {
		cores []int
		n     int
		want  [][]int
	}{
		{[]int{0, 1}, 2, [][]int{{0}, {1}}},
		{[]int{0, 1, 2, 3, 4}, 2, [][]int{{0, 1}, {2, 3, 4}}},
		{[]int{4, 6, 8}, 3, [][]int{{4}, {6}, {8}}},
		{[]int{0}, 1, [][]int{{0}}},
	} {
		got, err := shares(c.cores, c.n)
		if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
			t.Errorf("%d shares of %v: %v\n%s", c.n, c.cores, err, diff)
		}
	}
	if _, err := shares([]int{0}, 2); !errors.Is(err, ErrFewCores) {
		t.Errorf("one core for two hosts: %v", err)
	}
}

func TestMask(t *testing.T) {
	for want, cores := range map[string][]int{"00000001": {0}, "00000006": {1, 2}, "00000003,80000000": {31, 32, 33}} {
		if got := mask(cores); got != want {
			t.Errorf("mask of %v is %s, want %s", cores, got, want)
		}
	}
}

func TestPinAppliesToProcessesOfHostsAndPods(t *testing.T) {
	labtest.RequireRoot(t)
	cores, err := Cores()
	if err != nil {
		t.Fatal(err)
	}
	if len(cores) < 2 {
		t.Skip("needs two cores")
	}
	l, err := New(t.Context(), Pair)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := l.Pin(t.Context(), cores[:2]); err != nil {
		t.Fatal(err)
	}
	var seen [2]string
	for i, h := range l.Ends {
		pod, err := h.AddPod("pod")
		if err != nil {
			t.Fatal(err)
		}
		const show = "taskset -cp $$ | sed 's/.*: //'"
		seen[i] = labtest.Run(t, pod.Space, "sh", "-c", show)
		if host := labtest.Run(t, h.Space, "sh", "-c", show); host != seen[i] {
			t.Errorf("host %q, pod %q", host, seen[i])
		}
	}
	if seen[0] == seen[1] || len(seen[0]) != len("0\n") {
		t.Errorf("hosts run on %q", seen)
	}
}
