package hostnet

import (
	"net/netip"
	"testing"
	"time"
)

// TestFollower: each case is a sequence of looks at the host.
func TestFollower(t *testing.T) {
	a := Address{Addr: addr("192.0.2.1"), Link: "eth0", MTU: 1500, Up: true}
	b := Address{Addr: addr("192.0.2.2"), Link: "eth0", MTU: 1500, Up: true}
	moved := Address{Addr: a.Addr, Link: "eth1", MTU: 9000, Up: true}
	six := Address{Addr: addr("2001:db8::1"), Link: "eth0", MTU: 1500, Up: true}
	down, tentative, deprecated, small := a, b, six, a
	down.Up, tentative.Tentative, deprecated.Deprecated, small.MTU = false, true, true, 1400
	six2 := Address{Addr: addr("2001:db8::2"), Link: "eth0", MTU: 1500, Up: true}

	type look struct {
		at        time.Duration // after the first look
		list      []Address
		candidate netip.Addr
		want      Step
	}
	list := func(l ...Address) []Address { return l }
	none := netip.Addr{}
	for name, c := range map[string]struct {
		start netip.Addr
		fixed bool
		looks []look
	}{
		"a second address appears": {a.Addr, false, []look{
			{0, list(a), none, Step{Addr: a.Addr, Local: true, MTU: 1500}},
			{time.Hour, list(b, a), b.Addr, Step{Addr: a.Addr, Local: true, MTU: 1500}},
		}},
		"another address": {a.Addr, false, []look{
			{0, list(a), none, Step{Addr: a.Addr, Local: true, MTU: 1500}},
			{time.Second, list(b), b.Addr, Step{Addr: a.Addr, MTU: 1500, Again: settle}},
			{time.Second + settle, list(b), b.Addr, Step{Addr: b.Addr, Local: true, MTU: 1500}},
			{time.Minute, list(b, a), a.Addr, Step{Addr: b.Addr, Local: true, MTU: 1500}},
		}},
		"a flap": {a.Addr, false, []look{
			{0, list(a), none, Step{Addr: a.Addr, Local: true, MTU: 1500}},
			{time.Second, list(b), b.Addr, Step{Addr: a.Addr, MTU: 1500, Again: settle}},
			{2 * time.Second, list(a, b), b.Addr, Step{Addr: a.Addr, Local: true, MTU: 1500}},
			{3 * time.Second, list(b), b.Addr, Step{Addr: a.Addr, MTU: 1500, Again: settle}},
		}},
		"another interface": {a.Addr, false, []look{
			{0, list(a), none, Step{Addr: a.Addr, Local: true, MTU: 1500}},
			{time.Second, list(down, moved), none, Step{Addr: a.Addr, Local: true, MTU: 9000}},
		}},
		"the MTU": {a.Addr, false, []look{
			{0, list(a), none, Step{Addr: a.Addr, Local: true, MTU: 1500}},
			{time.Second, list(small), none, Step{Addr: a.Addr, Local: true, MTU: 1400}},
		}},
		"the interface goes down": {a.Addr, false, []look{
			{0, list(a), none, Step{Addr: a.Addr, Local: true, MTU: 1500}},
			{0, list(down, b), b.Addr, Step{Addr: a.Addr, Local: true, MTU: 1500, Again: settle}},
			{settle, list(down, b), b.Addr, Step{Addr: b.Addr, Local: true, MTU: 1500}},
		}},
		"no address, then one": {a.Addr, false, []look{
			{0, list(a), none, Step{Addr: a.Addr, Local: true, MTU: 1500}},
			{0, nil, none, Step{Addr: a.Addr, MTU: 1500, Again: settle}},
			{settle, nil, none, Step{Addr: a.Addr, Missing: true, MTU: 1500}},
			{time.Minute, list(tentative), b.Addr, Step{Addr: a.Addr, Missing: true, MTU: 1500}},
			{time.Hour, list(b), b.Addr, Step{Addr: b.Addr, Local: true, MTU: 1500}},
		}},
		"the other family is configured first": {a.Addr, false, []look{
			{0, list(a), none, Step{Addr: a.Addr, Local: true, MTU: 1500}},
			{0, list(six), six.Addr, Step{Addr: a.Addr, MTU: 1500, Again: settleFamily}},
			{5 * time.Second, list(six, b), b.Addr, Step{Addr: b.Addr, Local: true, MTU: 1500}},
		}},
		"the other family alone": {a.Addr, false, []look{
			{0, list(a), none, Step{Addr: a.Addr, Local: true, MTU: 1500}},
			{0, list(six), six.Addr, Step{Addr: a.Addr, MTU: 1500, Again: settleFamily}},
			{settleFamily, list(six), six.Addr, Step{Addr: six.Addr, Local: true, MTU: 1500}},
		}},
		"a deprecated address": {six.Addr, false, []look{
			{0, list(six), none, Step{Addr: six.Addr, Local: true, MTU: 1500}},
			{0, list(deprecated, six2), six2.Addr, Step{Addr: six.Addr, Local: true, MTU: 1500, Again: settle}},
			{settle, list(deprecated, six2), six2.Addr, Step{Addr: six2.Addr, Local: true, MTU: 1500}},
		}},
		"a deprecated address and no other": {six.Addr, false, []look{
			{0, list(six), none, Step{Addr: six.Addr, Local: true, MTU: 1500}},
			{settle, list(deprecated), six.Addr, Step{Addr: six.Addr, Local: true, MTU: 1500, Again: settle}},
			{2 * settle, list(deprecated), six.Addr, Step{Addr: six.Addr, Local: true, MTU: 1500}},
		}},
		"a given address": {a.Addr, true, []look{
			{0, list(a, b), none, Step{Addr: a.Addr, Local: true, MTU: 1500}},
			{time.Hour, list(b), b.Addr, Step{Addr: a.Addr, Missing: true, MTU: 1500}},
			{2 * time.Hour, list(b, a), b.Addr, Step{Addr: a.Addr, Local: true, MTU: 1500}},
		}},
		"behind a NAT": {a.Addr, true, []look{
			{0, list(b), none, Step{Addr: a.Addr, MTU: defaultMTU}},
			{time.Hour, nil, none, Step{Addr: a.Addr, MTU: defaultMTU}},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			f := NewFollower(c.start, c.fixed)
			start := time.Now()
			for i, l := range c.looks {
				if got := f.Observe(l.list, l.candidate, start.Add(l.at)); got != l.want {
					t.Errorf("look %d: %+v, want %+v", i, got, l.want)
				}
			}
		})
	}
}
