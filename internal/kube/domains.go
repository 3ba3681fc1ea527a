package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"weft/internal/kube/domains"
	"weft/internal/kube/policy"
	"weft/internal/signal"
)

// domainsFile has the addresses of domains. It is in the run directory, because a reboot ends the connections to them.
const domainsFile = "domains.json"

// Times of domain names.
const (
	// answersPause is the time between two attempts to read DNS answers.
	answersPause = 10 * time.Second
	// lookPause is the time between two looks at the open connections.
	lookPause = time.Minute
	// refreshPause is the time between two writes of the file if only the times of addresses have changed.
	refreshPause = time.Minute
)

// maxAnswers is how many answers wait for the enforcer. More wait in the kernel.
const maxAnswers = 256

// AnswerLog reports the packets with DNS answers that the firewall copies. firewall.NFLog is one.
type AnswerLog interface {
	// Answers calls report for each packet, from the calling goroutine, until ctx ends or an error occurs. The packet is borrowed.
	Answers(ctx context.Context, report func(packet []byte)) error
}

// ConnectionTable lists open connections. firewall.Conntrack is one.
type ConnectionTable interface {
	// Connections calls visit for each connection, from the calling goroutine.
	Connections(visit func(client, server netip.Addr)) error
}

// domainNames learns the addresses of the domains in rules of this node's pods.
//
//	packets ──run──> answers ──learn──> table ──> policy.State.SetDomain
//
// The enforcer calls its methods from one goroutine, except run.
type domainNames struct {
	packets     AnswerLog       // nil: nothing is learned
	connections ConnectionTable // nil: there are none
	state       *policy.State
	path        string
	log         *slog.Logger
	answers     chan domains.Answer // to names that a rule matches
	needed      atomic.Pointer[[]policy.Domain]
	use         signal.Chan   // set when a domain is needed
	received    atomic.Uint64 // answers
	known       atomic.Int64  // addresses

	table     *domains.Table
	looked    time.Time // when the open connections were looked at
	saved     time.Time
	changed   bool // the file lacks an address, or has one too many
	refreshed bool // the file has earlier times
}

// newDomainNames returns the domainNames with the addresses of the last run.
func newDomainNames(cfg Config, state *policy.State, now time.Time) (*domainNames, error) {
	d := &domainNames{
		packets: cfg.Answers, connections: cfg.Connections, state: state, path: filepath.Join(cfg.RunDir, domainsFile), log: cfg.Log,
		answers: make(chan domains.Answer, maxAnswers), use: signal.New(), saved: now,
	}
	d.needed.Store(&[]policy.Domain{})
	text, err := os.ReadFile(d.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("kube: addresses of domains: %w", err)
	}
	var entries []domains.Entry
	_ = json.Unmarshal(text, &entries) // else there is none, or it was damaged by a crash
	d.table = domains.NewTable(entries, now)
	var all []policy.Domain
	for _, e := range d.table.Entries() {
		all = append(all, e.Domain)
	}
	d.set(slices.Compact(all))
	d.changed = false
	return d, nil
}

// set gives the state the addresses of domains.
func (d *domainNames) set(changed []policy.Domain) {
	for _, c := range changed {
		d.state.SetDomain(c, d.table.Addrs(c))
		d.changed = true
	}
	d.known.Store(int64(d.table.Len()))
}

// need replaces the domains that rules of this node's pods have.
func (d *domainNames) need(list []policy.Domain) {
	d.needed.Store(&list)
	if len(list) > 0 {
		d.use.Set()
	}
}

// run reads answers until ctx ends, once a domain is needed.
func (d *domainNames) run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-d.use.C():
	}
	for last := ""; ; {
		err := d.packets.Answers(ctx, func(packet []byte) { d.receive(ctx, packet) })
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if text := fmt.Sprint(err); text != last {
			last = text
			d.log.Warn("DNS answers cannot be read: rules by domain name open no new addresses", "err", err)
		}
		if err := pause(ctx, answersPause); err != nil {
			return err
		}
	}
}

// receive passes on the answers in a packet that concern rules.
func (d *domainNames) receive(ctx context.Context, packet []byte) {
	needed := *d.needed.Load()
	for _, a := range domains.ParsePacket(packet) {
		if !slices.ContainsFunc(needed, func(p policy.Domain) bool { return p.Matches(a.Name) }) {
			continue
		}
		d.received.Add(1)
		select {
		case d.answers <- a:
		case <-ctx.Done():
		}
	}
}

// learn adds the addresses of an answer, and of all others that wait. It reports whether an address is new.
func (d *domainNames) learn(a domains.Answer, now time.Time) (changed bool) {
	for {
		for _, p := range *d.needed.Load() {
			if !p.Matches(a.Name) {
				continue
			}
			d.refreshed = true
			if list := d.table.Learn(p, a, now); len(list) > 0 {
				changed = true
				d.set(list)
			}
		}
		select {
		case a = <-d.answers:
		default:
			return changed
		}
	}
}

// expire removes the addresses that no answer and no open connection of these pods keeps, and reports whether there were any. Without
// pods it keeps them for some time: after a restart, policies may be unknown for a moment.
func (d *domainNames) expire(pods []netip.Addr, now time.Time) bool {
	if len(pods) == 0 {
		now = now.Add(-domains.MinKeep)
	}
	if now.Sub(d.looked) < lookPause || !d.table.Due(now) {
		return false
	}
	d.looked = now
	changed := d.table.Expire(now, d.open(pods))
	d.set(changed)
	d.refreshed = true
	return len(changed) > 0
}

// open returns the addresses to which these pods have open connections.
func (d *domainNames) open(pods []netip.Addr) map[netip.Addr]bool {
	open := map[netip.Addr]bool{}
	if d.connections == nil {
		return open
	}
	of := make(map[netip.Addr]bool, len(pods))
	for _, ip := range pods {
		of[ip] = true
	}
	if err := d.connections.Connections(func(client, server netip.Addr) {
		if of[client] {
			open[server] = true
		}
	}); err != nil {
		d.log.Warn("open connections cannot be read: the addresses of domains are closed in spite of them", "err", err)
	}
	return open
}

// problems returns those of policies with domains that have too many addresses.
func (d *domainNames) problems() []policy.Problem { return d.state.DomainProblems(d.table.Full()) }

// save writes the file if addresses have changed, or their times some time ago.
func (d *domainNames) save(now time.Time) {
	if !d.changed && (!d.refreshed || now.Sub(d.saved) < refreshPause) {
		return
	}
	if err := replaceJSON(d.path, d.table.Entries()); err != nil {
		d.log.Warn("addresses of domains are lost at a restart", "err", err) // the next check writes them
		return
	}
	d.saved, d.changed, d.refreshed = now, false, false
}
