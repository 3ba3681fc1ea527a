package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	typedcore "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"

	"weft/internal/api"
	"weft/internal/kube/firewall"
	"weft/internal/kube/policy"
)

// Times of enforcement.
const (
	// intactPeriod is the time between two checks of the rules without a notification of a change.
	intactPeriod = 2 * time.Second
	// intactPause is the time from a notification to the check, so that many changes need one check. After a check that took
	// long, because the tables are large, it is intactShare times as long as that check, but at most maxIntactPause.
	intactPause, intactShare, maxIntactPause = 100 * time.Millisecond, 5, 500 * time.Millisecond
	// debounce is how long changes are collected before they are enforced, so that many changes need one transaction.
	debounce = 50 * time.Millisecond
	// admitTimeout bounds how long a pod waits until its policies are in force.
	admitTimeout = 20 * time.Second
	// admitPoll is the time between two checks whether the API server has announced a pod.
	admitPoll = 10 * time.Millisecond
)

// maxAdmission bounds the body of an admission request, in bytes.
const maxAdmission = 1 << 16

// enforcer keeps the rules of the packet filter equal to the policies of the cluster.
type enforcer struct {
	cluster  *cluster
	filter   firewall.Firewall
	attached *attachments
	guards   *guards
	health   *health
	log      *slog.Logger
	events   record.EventBroadcaster
	recorder record.EventRecorder
	urgent   chan struct{} // holds one signal: an admission is waiting
	period   time.Duration // between checks without a notification
	// filtersChanged signals changes of packet filters, also those that filter makes; nil: never.
	filtersChanged <-chan struct{}

	mu        sync.Mutex
	requested uint64                  // guarded by mu; counts requests to enforce the current state
	done      uint64                  // guarded by mu; the last request that is in force
	waiting   chan struct{}           // guarded by mu; closed when done changes
	names     map[netip.Addr]string   // guarded by mu; of pods, for the log
	reported  map[policy.Problem]bool // guarded by mu

	restored atomic.Uint64 // how often the rules were set again

	// owned by run
	applied  *policy.Ruleset
	ports    ports
	portless bool          // the port of a local pod is unknown
	pause    time.Duration // from a notification to the check
}

func newEnforcer(cfg Config, c *cluster, h *health) (*enforcer, error) {
	attached, err := openAttachments(cfg.RunDir)
	if err != nil {
		return nil, err
	}
	e := &enforcer{
		cluster: c, filter: cfg.Filter, attached: attached, health: h, log: cfg.Log, events: record.NewBroadcaster(),
		urgent: make(chan struct{}, 1), waiting: make(chan struct{}), reported: map[policy.Problem]bool{},
		ports: ports{daemon: cfg.Daemon}, period: intactPeriod, pause: intactPause,
	}
	if cfg.FilterChanges != nil {
		e.filtersChanged = cfg.FilterChanges.Changed()
	}
	e.events.StartRecordingToSink(&typedcore.EventSinkImpl{Interface: cfg.API.CoreV1().Events("")})
	e.recorder = e.events.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "weft", Host: cfg.Node})
	e.guards = newGuards(cfg, c, e.recorder)
	return e, nil
}

// run enforces the policies of the cluster until ctx ends. The rules stay after that.
func (e *enforcer) run(ctx context.Context) error {
	defer e.events.Shutdown()
	check := time.NewTimer(e.period)
	defer check.Stop()
	soon := false // the check follows a notification
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-e.cluster.changed:
			if err := pause(ctx, debounce); err != nil {
				return err
			}
			e.drain()
		case <-e.urgent:
		case <-e.filtersChanged:
			if !soon {
				soon = true
				check.Reset(e.pause)
			}
			continue
		case <-check.C:
			e.check(ctx)
			soon = false
			check.Reset(e.period)
			continue
		}
		e.enforce(ctx)
	}
}

// check sets the rules again if another program has changed them, or if they are behind.
func (e *enforcer) check(ctx context.Context) {
	start := time.Now()
	intact, err := e.filter.Intact(ctx)
	e.pause = min(max(intactPause, intactShare*time.Since(start)), maxIntactPause)
	switch {
	case err != nil:
		e.log.Warn("checking the rules of policies failed", "err", err)
		return
	case intact:
		e.enforceIfBehind(ctx)
		return
	case e.applied != nil:
		e.log.Warn("the rules of policies were changed by another program: setting them again")
		e.restored.Add(1)
	}
	e.applied = nil
	e.enforce(ctx)
}

// pause waits for d, or returns the error of ctx when it ends first.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// drain removes a pending signal: the enforcement that follows covers all changes so far.
func (e *enforcer) drain() {
	select {
	case <-e.cluster.changed:
	default:
	}
}

// enforceIfBehind enforces again if a request is not in force, for example because the last attempt failed.
func (e *enforcer) enforceIfBehind(ctx context.Context) {
	e.mu.Lock()
	behind := e.done != e.requested
	e.mu.Unlock()
	if behind || e.applied == nil || e.portless && e.ports.search(ctx) {
		e.enforce(ctx)
	}
	e.guards.sync(ctx, e.attached.all()) // again, where the daemon did not answer
}

// enforce compiles the policies of the cluster as it is now and applies the rules.
func (e *enforcer) enforce(ctx context.Context) {
	if !e.cluster.ready() {
		return // an incomplete cache would allow too much or too little: the present rules stay
	}
	e.mu.Lock()
	requested := e.requested
	e.mu.Unlock()
	if err := e.attached.retain(e.exists); err != nil {
		e.log.Warn("removing deleted pods from the attachments failed", "err", err)
	}
	snapshot, unread, err := e.cluster.snapshot(e.attached.all(), e.ports.byAddr)
	if e.portless = err == nil && portless(snapshot); e.portless && e.ports.search(ctx) {
		snapshot, unread, err = e.cluster.snapshot(e.attached.all(), e.ports.byAddr)
	}
	if err != nil {
		e.log.Warn("reading the cluster failed", "err", err)
		return
	}
	rules := policy.Compile(snapshot)
	if e.applied == nil || !equal(e.applied, rules) {
		if err := e.filter.Apply(ctx, rules); err != nil {
			e.log.Error("policies cannot be enforced", "err", err)
			e.health.set(checkPolicies, err)
			e.applied = nil // retried at the next check
			return
		}
		e.applied = rules
	}
	e.health.set(checkPolicies, nil)
	e.guards.sync(ctx, e.attached.all())
	e.report(append(rules.Problems, unread...))
	names := map[netip.Addr]string{}
	for _, p := range snapshot.Pods {
		for _, ip := range p.IPs {
			names[ip] = p.Namespace + "/" + p.Name
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.names, e.done = names, requested
	close(e.waiting)
	e.waiting = make(chan struct{})
}

// equal reports whether two rulesets enforce the same decisions.
func equal(a, b *policy.Ruleset) bool {
	return reflect.DeepEqual(a.Pods, b.Pods) && reflect.DeepEqual(a.Sets, b.Sets) && reflect.DeepEqual(a.Chains, b.Chains) &&
		reflect.DeepEqual(a.Links, b.Links) && slices.Equal(a.Addrs, b.Addrs)
}

// exists reports whether the API server still has the pod of an attachment.
func (e *enforcer) exists(a attachment) bool {
	p, err := e.cluster.pods.Pods(a.Namespace).Get(a.Name)
	if apierrors.IsNotFound(err) {
		return false
	}
	return err != nil || is(p, a.UID)
}

// report publishes each new problem once, as an event of the policy and in the log.
func (e *enforcer) report(problems []policy.Problem) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := map[policy.Problem]bool{}
	for _, p := range problems {
		now[p] = true
		if e.reported[p] {
			continue
		}
		e.log.Warn("a policy cannot be enforced as written", "kind", p.Kind, "namespace", p.Namespace, "name", p.Name, "problem", p.Message)
		version := "networking.k8s.io/v1"
		if p.Kind != "NetworkPolicy" {
			version = adminPolicies.GroupVersion().String()
		}
		e.recorder.Event(&corev1.ObjectReference{
			Kind: p.Kind, Namespace: p.Namespace, Name: p.Name, UID: types.UID(p.UID), APIVersion: version,
		}, corev1.EventTypeWarning, "PolicyProblem", p.Message)
	}
	e.reported = now
}

// logDrop logs a dropped packet, with the names of the pods at both ends where they are known.
func (e *enforcer) logDrop(d firewall.Drop) {
	e.mu.Lock()
	src, dst := e.names[d.Src], e.names[d.Dst]
	e.mu.Unlock()
	e.log.Info("dropped by policy", "direction", d.Direction.String(), "from", d.Src, "from_pod", src, "to", d.Dst, "to_pod", dst,
		"protocol", d.Protocol, "port", d.DstPort)
}

// handler serves the admission requests of the plugin.
func (e *enforcer) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /v1/pods", func(w http.ResponseWriter, r *http.Request) {
		var in api.Admission
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAdmission)).Decode(&in); err != nil || in.Name == "" || in.Namespace == "" {
			writeProblem(w, &api.Problem{
				Kind: api.KindInvalid, Status: http.StatusBadRequest,
				Detail: "weft-kube: the request must have the namespace, name and addresses of a pod",
			})
			return
		}
		if err := e.admit(r.Context(), in); err != nil {
			writeProblem(w, err)
			return
		}
		_ = json.NewEncoder(w).Encode(e.guards.admitted(in))
	})
	mux.HandleFunc("GET /v1/ready", func(w http.ResponseWriter, _ *http.Request) {
		if err := e.health.get(checkPolicies); err != nil {
			writeProblem(w, &api.Problem{Kind: api.KindStarting, Status: http.StatusServiceUnavailable, Detail: "weft-kube: " + err.Error()})
		}
	})
	return mux
}

func writeProblem(w http.ResponseWriter, err error) {
	p, ok := errors.AsType[*api.Problem](err)
	if !ok {
		p = &api.Problem{Kind: api.KindInternal, Status: http.StatusInternalServerError, Detail: "weft-kube: " + err.Error()}
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p)
}

// admit returns nil once the policies of a pod are in force for its addresses, or a timeout problem after admitTimeout.
func (e *enforcer) admit(ctx context.Context, in api.Admission) error {
	ctx, cancel := context.WithTimeout(ctx, admitTimeout)
	defer cancel()
	late := func(what string) error {
		return &api.Problem{
			Kind: api.KindTimeout, Status: http.StatusGatewayTimeout,
			Detail: fmt.Sprintf("weft-kube: policies of pod %s/%s are not in force: %s", in.Namespace, in.Name, what),
			Hint: "The kubelet adds the pod again. If this error stays, read the log of weft-kube on this node and check that it reaches " +
				"the API server.",
		}
	}
	if err := e.attached.add(in); err != nil {
		return err
	}
	for !e.known(in) {
		if pause(ctx, admitPoll) != nil {
			return late("the API server has not announced the pod")
		}
	}
	e.mu.Lock()
	e.requested++
	want := e.requested
	e.mu.Unlock()
	notify(e.urgent)
	for {
		e.mu.Lock()
		done, waiting := e.done, e.waiting
		e.mu.Unlock()
		if done >= want {
			return nil
		}
		select {
		case <-ctx.Done():
			return late("setting the rules takes too long")
		case <-waiting:
		}
	}
}

// known reports whether the cache of the cluster is complete and contains the pod.
func (e *enforcer) known(in api.Admission) bool {
	if !e.cluster.ready() {
		return false
	}
	p, err := e.cluster.pods.Pods(in.Namespace).Get(in.Name)
	return err == nil && is(p, in.UID)
}
