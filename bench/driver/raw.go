package driver

import (
	"context"

	"weft/bench/lab"
	"weft/internal/nettest"
)

// raw is the underlay without an overlay: the upper bound.
type raw struct{}

// Name implements Driver.
func (raw) Name() string { return "raw" }

// Summary implements Driver.
func (raw) Summary() string { return "no overlay: the veth pairs and the switch between the hosts" }

// Prepare implements Driver.
func (raw) Prepare(context.Context, *Tools) error { return nil }

// Up implements Driver.
func (raw) Up(_ context.Context, l *lab.Lab) (*Overlay, error) {
	o := &Overlay{}
	for _, h := range l.Ends {
		o.Ends = append(o.Ends, lab.End{Space: h.Space, Addr: h.Addr()})
	}
	o.Facts.MTU, o.Facts.Ends = nettest.DefaultMTU, betweenHosts
	return o, nil
}
