package kube

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/record"

	"weft/internal/api"
	"weft/internal/kube/cluster"
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

// guards passes changes of the annotations of running pods to the daemon.
type guards struct {
	daemon   Daemon
	cluster  *cluster.Cluster
	claims   *claims
	byRule   api.GuardMode // of pods without annotation
	log      *slog.Logger
	recorder record.EventRecorder

	// owned by the enforcer's run
	sent     map[string]string // by attachment: the last request that the daemon has accepted
	reported map[podKey]string // problems of annotations
	behind   bool              // the daemon has not accepted all requests of the last sync
}

func newGuards(cfg Config, c *cluster.Cluster, claims *claims, recorder record.EventRecorder) *guards {
	g := &guards{
		daemon: cfg.Daemon, cluster: c, claims: claims, log: cfg.Log, recorder: recorder, sent: map[string]string{},
		reported: map[podKey]string{}, byRule: api.GuardHost,
	}
	if cfg.Install != nil {
		g.byRule = cmp.Or(cfg.Install.Guard, g.byRule)
	}
	return g
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

// sync makes the daemon guard the pods of this node as their annotations say now. A pod that the plugin has not guarded yet, and one that
// a guard would cut off, is tried again at the next call. A pod that the plugin announced without its owner, or not at all, was attached
// by an older version: the daemon knows its owner by its addresses.
func (g *guards) sync(ctx context.Context, attached map[podKey]attachment) {
	seen := map[string]bool{}
	g.behind = false
	for name, a := range attached {
		switch p := g.cluster.Pod(name); {
		case p == nil:
		case !p.Is(a.UID):
			seen[subject(a.request())] = true
		default:
			g.guard(ctx, name, p, a.request(), seen)
		}
	}
	for name, ips := range g.claims.unattached() {
		if p := g.claims.local[name]; p != nil {
			g.guard(ctx, name, p, api.GuardRequest{IPs: ips}, seen)
		}
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

// guard sends what the annotations of a pod say, in a request that names its attachment.
func (g *guards) guard(ctx context.Context, name podKey, p *cluster.Pod, r api.GuardRequest, seen map[string]bool) {
	seen[subject(r)] = true
	says, err := guardOf(p)
	g.report(name, p, err)
	r.Guard, r.Allow = cmp.Or(says.Guard, g.byRule), says.Allow
	g.send(ctx, r)
}

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
