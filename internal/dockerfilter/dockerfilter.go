// Package dockerfilter lets the frames that pods exchange on the overlay's bridge pass the filter of Docker.
//
// With br_netfilter, which Docker loads, frames that a bridge only forwards pass the host's chain FORWARD. A Docker that starts on a
// host without IP forwarding turns forwarding on, and makes that chain drop what no rule accepts. All pods of the host would be cut
// off. Docker has the chain DOCKER-USER for rules of others, which it leaves alone:
//
//	iptables -A DOCKER-USER -i weave -o weave -j ACCEPT
//
// The rule is the last of the chain, so rules of the operator come first; Docker before version 28 ends the chain with RETURN, which
// the rule precedes. It accepts no packet that the host routes. Rules of iptables-legacy are left as they are: "weft doctor" reports
// what they drop.
package dockerfilter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"

	"weft/internal/nftsum"
)

// Names of Docker, in the tables that iptables and ip6tables make.
const (
	table = "filter"
	chain = "DOCKER-USER"
)

// comment explains the rule to readers of nft and iptables.
const comment = "weft: pods on one bridge"

// errNew means that the rule is missing because Docker has made the chain since.
var errNew = errors.New("dockerfilter: Docker has made a chain")

// family is an address family, for both packages that read rules.
type family struct {
	rules nftables.TableFamily
	sum   nftsum.Family
}

var families = []family{{nftables.TableFamilyIPv4, nftsum.IPv4}, {nftables.TableFamilyIPv6, nftsum.IPv6}}

// Keeper keeps the rule in the chain of each family that has one. Its methods work on the network namespace of the calling thread,
// start no program, and are called by one goroutine at a time.
type Keeper struct {
	bridge string
	log    *slog.Logger
	set    map[family]bool // chains that had the rule when they were seen last
	failed bool
}

// NewKeeper returns a Keeper for the bridge with the given name, which has changed nothing yet.
func NewKeeper(bridge string, log *slog.Logger) *Keeper {
	return &Keeper{bridge: bridge, log: log, set: map[family]bool{}}
}

// Name names the rules, as a part of a sentence.
func (*Keeper) Name() string { return "the rule for the bridge in Docker's filter" }

// Postponed is called when the rule is missing, and another program keeps removing it.
func (*Keeper) Postponed() {}

// Intact reports whether all chains of Docker have the rule. A chain that Docker has just made is no change by another program: it is
// an error, until Apply.
func (k *Keeper) Intact(context.Context) (intact bool, err error) {
	intact = true
	for _, f := range families {
		at, e := find(f, k.bridge)
		switch {
		case e != nil:
			err = errors.Join(err, e)
		case !at.exists:
			delete(k.set, f)
		case at.ours == nil:
			intact = false
			if !k.set[f] {
				err = errors.Join(err, errNew)
			}
		default:
			k.set[f] = true
		}
	}
	return intact && err == nil, err
}

// Apply adds the rule where it is missing.
func (k *Keeper) Apply(context.Context) error {
	var errs []error
	for _, f := range families {
		if err := add(f, k.bridge); err != nil {
			errs = append(errs, fmt.Errorf("dockerfilter: add a rule for %s to %s: %w", k.bridge, chain, err))
		}
	}
	err := errors.Join(errs...)
	if err != nil && !k.failed {
		k.log.Warn("Docker may drop what pods send to other nodes: \"weft doctor\" has the rule to add", "err", err)
	}
	k.failed = err != nil
	return err
}

// Remove removes the rule for a bridge. A host without Docker or without nftables is success.
func Remove(bridge string) error {
	var errs []error
	for _, f := range families {
		at, err := find(f, bridge)
		if err == nil && at.ours != nil {
			if err = at.conn.DelRule(at.ours); err == nil {
				err = at.conn.Flush()
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("dockerfilter: remove the rule for %s from %s: %w", bridge, chain, err))
		}
	}
	return errors.Join(errs...)
}

// place is where the rule is in a chain, or belongs.
type place struct {
	conn   *nftables.Conn
	exists bool           // the chain does
	ours   *nftables.Rule // nil: the chain does not have it
	end    *nftables.Rule // the RETURN at the end of the chain; nil: there is none
}

// find looks for the rule in the chain of a family, which need not exist.
func find(f family, bridge string) (place, error) {
	if exists, err := nftsum.HasChain(f.sum, table, chain); err != nil || !exists {
		return place{}, err
	}
	conn, err := nftables.New()
	if err != nil {
		return place{}, err
	}
	rules, err := conn.GetRules(&nftables.Table{Name: table, Family: f.rules}, &nftables.Chain{Name: chain})
	if err != nil {
		return place{}, err
	}
	p, want := place{conn: conn, exists: true}, body(rule(bridge))
	for i, r := range rules {
		switch got := body(r.Exprs); {
		case reflect.DeepEqual(got, want):
			p.ours = r
		case i == len(rules)-1 && reflect.DeepEqual(got, []expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}}):
			p.end = r
		}
	}
	return p, nil
}

// add adds the rule to the chain of a family, if the chain exists and does not have it.
func add(f family, bridge string) error {
	p, err := find(f, bridge)
	if err != nil || !p.exists || p.ours != nil {
		return err
	}
	r := &nftables.Rule{
		Table: &nftables.Table{Name: table, Family: f.rules}, Chain: &nftables.Chain{Name: chain}, Exprs: rule(bridge),
		UserData: userdata.AppendString(nil, userdata.TypeComment, comment),
	}
	if p.end != nil {
		r.Position = p.end.Handle
		p.conn.InsertRule(r)
	} else {
		p.conn.AddRule(r)
	}
	return p.conn.Flush()
}

// rule returns the rule for a bridge in the form of iptables, which could not read another one.
func rule(bridge string) []expr.Any {
	name := append([]byte(bridge), 0)
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: name},
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: name},
		&expr.Counter{},
		&expr.Verdict{Kind: expr.VerdictAccept},
	}
}

// body returns the parts of a rule that decide: without counters, which change by themselves, and without the comment, which
// iptables-restore moves from the data of the rule to a part of its own.
func body(parts []expr.Any) []expr.Any {
	return slices.DeleteFunc(slices.Clone(parts), func(e expr.Any) bool {
		switch e := e.(type) {
		case *expr.Counter:
			return true
		case *expr.Match:
			return e.Name == "comment"
		default:
			return false
		}
	})
}
