package probe_test

import (
	"os"
	"testing"
	"time"

	"weft/bench/lab"
	"weft/bench/probe"
	"weft/internal/nettest/labtest"
)

// TestMain lets this program be the child of a probe.
func TestMain(m *testing.M) {
	probe.Child()
	os.Exit(m.Run())
}

// ends returns the two ends of a lab without an overlay.
func ends(t *testing.T) (from, to lab.End) {
	t.Helper()
	labtest.RequireRoot(t)
	l, err := lab.New(t.Context(), lab.Pair)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return lab.End{Space: l.Ends[1].Space, Addr: l.Ends[1].Addr()}, lab.End{Space: l.Ends[0].Space, Addr: l.Ends[0].Addr()}
}

func TestRequestsAndConnects(t *testing.T) {
	from, to := ends(t)
	echo, err := probe.Listen(to)
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	trips, err := probe.Requests(t.Context(), from, echo.Addr(), 100*time.Millisecond)
	if err != nil || len(trips) == 0 || trips[0] <= 0 {
		t.Errorf("%d requests, %v", len(trips), err)
	}
	if rate, err := probe.Connects(t.Context(), from, echo.Addr(), 2, 100*time.Millisecond); err != nil || rate <= 0 {
		t.Errorf("%v connections a second, %v", rate, err)
	}
	echo.Close()
	if _, err := probe.Requests(t.Context(), from, echo.Addr(), time.Second); err == nil {
		t.Error("a closed server still answers")
	}
}

func TestBurst(t *testing.T) {
	from, to := ends(t)
	flow, err := probe.Open(from, to, 64)
	if err != nil {
		t.Fatal(err)
	}
	defer flow.Close()
	for range 2 {
		c, err := flow.Burst(t.Context(), 5000, 200*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		// Never more than requested; how much less depends on the machine.
		if c.Sent == 0 || c.Sent > 1032 || c.Received > c.Sent {
			t.Errorf("a fifth of a second at 5,000/s: %+v", c)
		}
	}
	if _, err := probe.Open(from, to, 4); err == nil {
		t.Error("datagrams without room for a number were accepted")
	}
}

func TestLost(t *testing.T) {
	for c, want := range map[probe.Count]float64{
		{Sent: 100, Received: 75}:  0.25,
		{Sent: 100, Received: 100}: 0,
		{}:                         1,
	} {
		if got := c.Lost(); got != want {
			t.Errorf("%+v lost %v, want %v", c, got, want)
		}
	}
}
