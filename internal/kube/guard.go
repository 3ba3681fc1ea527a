package kube

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/record"

	"weft/internal/api"
	"weft/internal/kube/cluster"
	"weft/internal/signal"
)

// Annotations of pods about their guard.
const (
	// GuardAnnotation is the mode of the guard for a pod: "off" for one that may send what it likes.
	GuardAnnotation = "weft.network/guard"
	// AllowAnnotation lists further addresses and prefixes that a bound pod may use, separated by commas.
	AllowAnnotation = "weft.network/allowed-addresses"
)

// guardOf returns what the annotations of a pod say. Of wrong ones it returns what is right, and an error: a typing error binds a pod.
func guardOf(p *cluster.Pod) (out api.Admitted, err error) {
	if out.Guard, err = api.ParseGuardMode(p.Annotations[GuardAnnotation]); err != nil {
		err = fmt.Errorf("annotation %s: %w", GuardAnnotation, err)
	}
	for text := range strings.FieldsFuncSeq(p.Annotations[AllowAnnotation], func(c rune) bool { return c == ',' || c == ' ' }) {
		allowed, parseErr := api.ParseAllowed(text)
		if parseErr != nil {
			err = errors.Join(err, fmt.Errorf("annotation %s: %w", AllowAnnotation, parseErr))
			continue
		}
		out.Allow = append(out.Allow, allowed)
	}
	return out, err
}

// guards passes changes of the annotations of running pods to the daemon. It does so beside the enforcement of policies: the daemon may
// take long where hundreds of pods start at once.
type guards struct {
	daemon   Daemon
	cluster  *cluster.Cluster
	byRule   api.GuardMode // of pods without annotation
	log      *slog.Logger
	recorder record.EventRecorder
	wake     signal.Chan

	mu     sync.Mutex
	wanted guardWork // guarded by mu; the latest

	// owned by run
	sent     map[string]string // by attachment: the last request that the daemon has accepted
	reported map[podKey]string // problems of annotations
	behind   bool              // the daemon has not accepted all requests of the last sync
}

// guardWork are the attachments of this node's pods.
type guardWork struct {
	pods []guardedPod
	keep map[string]bool // attachments of pods that are not known now
}

// guardedPod is a pod with a request that names its attachment.
type guardedPod struct {
	name    podKey
	pod     *cluster.Pod
	request api.GuardRequest
}

func newGuards(cfg Config, c *cluster.Cluster, recorder record.EventRecorder) *guards {
	g := &guards{
		daemon: cfg.Daemon, cluster: c, log: cfg.Log, recorder: recorder, wake: signal.New(), sent: map[string]string{},
		reported: map[podKey]string{}, byRule: api.GuardHost,
	}
	if cfg.Install != nil {
		g.byRule = cmp.Or(cfg.Install.Guard, g.byRule)
	}
	return g
}

// guardPeriod is the time between two attempts for attachments that the daemon has not accepted.
const guardPeriod = 2 * time.Second

// run guards pods until ctx ends.
func (g *guards) run(ctx context.Context) {
	tick := time.NewTicker(guardPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.wake.C():
		case <-tick.C:
			if !g.behind {
				continue
			}
		}
		g.mu.Lock()
		wanted := g.wanted
		g.mu.Unlock()
		g.sync(ctx, wanted)
	}
}

// want makes the daemon guard the pods of this node as their annotations say now. A pod that the plugin announced without its owner, or
// not at all, was attached by an older version: the daemon knows its owner by its addresses.
func (g *guards) want(attached map[podKey]attachment, c *claims) {
	work := guardWork{keep: map[string]bool{}}
	for name, a := range attached {
		switch p := g.cluster.Pod(name); {
		case p == nil:
		case !p.Is(a.UID):
			work.keep[subject(a.request())] = true
		default:
			work.pods = append(work.pods, guardedPod{name, p, a.request()})
		}
	}
	for name, ips := range c.unattached() {
		if p := c.last(name); p != nil {
			work.pods = append(work.pods, guardedPod{name, p, api.GuardRequest{IPs: ips}})
		}
	}
	g.mu.Lock()
	g.wanted = work
	g.mu.Unlock()
	g.wake.Set()
}

// admitted returns what the annotations of an admitted pod say.
func (g *guards) admitted(in api.Admission) api.Admitted {
	p := g.cluster.Pod(podKey{Namespace: in.Namespace, Name: in.Name})
	if p == nil {
		return api.Admitted{} // it was deleted meanwhile
	}
	out, _ := guardOf(p) // sync reports what is wrong
	return out
}

// sync sends what has changed. A pod that the plugin has not guarded yet, and one that a guard would cut off, is tried again at the next
// call.
func (g *guards) sync(ctx context.Context, work guardWork) {
	seen := maps.Clone(work.keep)
	g.behind = false
	for _, p := range work.pods {
		if ctx.Err() != nil {
			return
		}
		seen[subject(p.request)] = true
		says, err := guardOf(p.pod)
		g.report(p.name, p.pod, err)
		r := p.request
		r.Guard, r.Allow = cmp.Or(says.Guard, g.byRule), says.Allow
		g.send(ctx, r)
	}
	for name := range g.sent {
		if !seen[name] {
			delete(g.sent, name)
		}
	}
}

// request returns a request that names the attachment.
func (a attachment) request() api.GuardRequest {
	if a.Owner == "" {
		return api.GuardRequest{IPs: a.IPs}
	}
	return api.GuardRequest{Owner: a.Owner}
}

// subject names the attachment that a request is for.
func subject(r api.GuardRequest) string { return r.Owner + fmt.Sprint(r.IPs) }

// send passes a request to the daemon unless it was the last one for its attachment.
func (g *guards) send(ctx context.Context, r api.GuardRequest) {
	text, err := json.Marshal(r)
	if err != nil || g.sent[subject(r)] == string(text) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err = g.daemon.Guard(ctx, r)
	g.behind = g.behind || err != nil
	if p, ok := errors.AsType[*api.Problem](err); ok && p.Kind == api.KindNotFound {
		return // the plugin has not come to it yet, or the daemon has a condition
	}
	if err != nil && !errors.Is(err, api.ErrOldDaemon) {
		g.log.Warn("the daemon cannot change the guard of a pod yet", "owner", r.Owner, "addresses", r.IPs, "err", err)
		return
	}
	g.sent[subject(r)] = string(text)
}

// report publishes a problem of annotations once, as an event of the pod and in the log.
func (g *guards) report(name podKey, p *cluster.Pod, err error) {
	if err == nil {
		delete(g.reported, name)
		return
	}
	if g.reported[name] == err.Error() {
		return
	}
	g.reported[name] = err.Error()
	g.log.Warn("an annotation of a pod is wrong and has no effect", "namespace", p.Namespace, "name", p.Name, "err", err)
	g.recorder.Event(p.Reference(), corev1.EventTypeWarning, "GuardProblem", err.Error())
}
