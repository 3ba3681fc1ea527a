// Package load is what is done through an overlay to measure it. A load runs between the namespaces of a lab's ends and
// returns what the receiving side saw.
package load

import (
	"context"
	"fmt"
	"strings"

	"weft/bench/lab"
	"weft/bench/sample"
)

// Env is where a load runs. The first end is who receives.
type Env struct {
	Lab *lab.Lab
	// Ends are those of the overlay, in the order of the lab's.
	Ends []lab.End
	// Seconds is how long the measured part takes.
	Seconds int
}

// Outcome is what a load saw.
type Outcome struct {
	Values sample.Values
	// Bytes and Packets are what was carried in all, warm-up included, for what CPU time is divided by; 0 where that says nothing.
	Bytes   uint64
	Packets uint64
}

// Load is one thing to do.
type Load struct {
	// Name is what --loads takes.
	Name string
	// Summary is a sentence for people.
	Summary string
	// Shape is the lab that it needs.
	Shape lab.Shape
	// Headline is the figure that stands for the load in tables.
	Headline sample.Metric
	// Run runs it once. It leaves the lab as it was.
	Run func(ctx context.Context, e *Env) (Outcome, error)
}

// All returns every load, in the order of the report.
func All() []Load {
	loads := []Load{idle()}
	loads = append(loads, tcpLoads()...)
	loads = append(loads, udpLoads()...)
	return append(loads, latencyLoads()...)
}

// Select returns the loads of those names in the order of All; no name selects all.
func Select(names []string) ([]Load, error) {
	all := All()
	if len(names) == 0 {
		return all, nil
	}
	wanted := map[string]bool{}
	for _, n := range names {
		wanted[n] = true
	}
	var chosen []Load
	var known []string
	for _, l := range all {
		known = append(known, l.Name)
		if wanted[l.Name] {
			chosen = append(chosen, l)
			delete(wanted, l.Name)
		}
	}
	for n := range wanted {
		return nil, fmt.Errorf("load: %q is none of %s", n, strings.Join(known, ", "))
	}
	return chosen, nil
}
