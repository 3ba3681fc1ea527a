// Package load generates traffic through an overlay and measures it. A load runs between the namespaces of a lab's ends
// and returns the figures of the receiving side.
package load

import (
	"context"
	"fmt"
	"strings"

	"weft/bench/lab"
	"weft/bench/sample"
)

// Env is the environment of a load. The first end is the receiver.
type Env struct {
	Lab *lab.Lab
	// Ends are the ends of the overlay, in the order of the lab's ends.
	Ends []lab.End
	// Seconds is the duration of the measurement.
	Seconds int
}

// Outcome is the result of a load.
type Outcome struct {
	Values sample.Values
	// Bytes and Packets are the totals, including warm-up, by which CPU time is divided. 0 means that the quotient would
	// have no meaning.
	Bytes   uint64
	Packets uint64
}

// Load is one kind of traffic.
type Load struct {
	// Name is the name for --loads.
	Name string
	// Summary is a sentence for people.
	Summary string
	// Shape is the shape of the lab that the load needs.
	Shape lab.Shape
	// Once is true if the load may take long, and shows the same beside other work: it is repeated only after an error.
	Once bool
	// Headline is the main figure of the load.
	Headline sample.Metric
	// Run runs the load once. It restores the state of the lab.
	Run func(ctx context.Context, e *Env) (Outcome, error)
}

// All returns every load, in the order of the report.
func All() []Load {
	loads := []Load{idle()}
	loads = append(loads, tcpLoads()...)
	loads = append(loads, udpLoads()...)
	loads = append(loads, latencyLoads()...)
	return append(loads, mixed())
}

// Select returns the loads with the given names in the order of All, or all loads if names is empty.
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
		return nil, fmt.Errorf("load: %q is unknown: use %s", n, strings.Join(known, ", "))
	}
	return chosen, nil
}
