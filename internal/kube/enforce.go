package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	typedcore "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"

	"weft/internal/api"
	"weft/internal/kube/cluster"
	"weft/internal/kube/firewall"
	"weft/internal/kube/policy"
)

// Times of enforcement.
const (
	// intactPeriod is the time between two checks of the rules without a notification of a change.
	intactPeriod = 2 * time.Second
	// intactPause is the time from a notification to the check, so that many changes need one check.
	intactPause = 100 * time.Millisecond
	// debounce is how long changes are collected before they are enforced, so that many changes need one transaction. An admission does
	// not wait for it.
	debounce = 250 * time.Millisecond
	// tidyPeriod is the time between two removals of rules that no pod needs any more. They take longer than what pods wait for.
	tidyPeriod = 5 * time.Second
	// admitTimeout bounds how long a pod waits until its policies are in force.
	admitTimeout = 20 * time.Second
	// admitPoll is the time between two checks whether the API server has announced a pod.
	admitPoll = 2 * time.Millisecond
)

// maxAdmission bounds the body of an admission request, in bytes.
const maxAdmission = 1 << 16

// enforcer keeps the rules of the packet filter equal to the policies of the cluster.
type enforcer struct {
	cluster  *cluster.Cluster
	filter   firewall.Firewall
	attached *attachments
	claims   *claims
	guards   *guards
	health   *health
	log      *slog.Logger
	events   record.EventBroadcaster
	recorder record.EventRecorder
	urgent   chan struct{} // holds one signal: an admission is waiting
	period   time.Duration // between checks without a notification
	// filtersChanged signals changes of packet filters, also those that filter makes; nil: never.
	filtersChanged <-chan struct{}
	links          Links

	mu        sync.Mutex
	requested uint64                  // guarded by mu; counts requests to enforce the current state
	done      uint64                  // guarded by mu; the last request that is in force
	waiting   chan struct{}           // guarded by mu; closed when done changes
	reported  map[policy.Problem]bool // guarded by mu
	admitting map[podKey]int          // guarded by mu; admissions that are not answered

	restored atomic.Uint64 // how often the rules were set again

	domains *domainNames

	// owned by run
	state   *policy.State
	applied bool // the rules in force are those of state
	started bool // attachments of the last run were compared with the cluster
	unread  []policy.Problem
	full    []policy.Problem // that domains have too many addresses, as last reported
	ports   ports
	// lingering are pods that the API server has deleted while their port is there: their sandbox still runs.
	lingering map[podKey]bool
	// What follows an enforcement, and has not been done for all changes.
	guardsBehind, reportBehind bool
}

func newEnforcer(cfg Config, c *cluster.Cluster, h *health) (*enforcer, error) {
	attached, err := openAttachments(cfg.RunDir)
	if err != nil {
		return nil, err
	}
	e := &enforcer{
		cluster: c, filter: cfg.Filter, attached: attached, health: h, log: cfg.Log, events: record.NewBroadcaster(),
		urgent: make(chan struct{}, 1), waiting: make(chan struct{}), reported: map[policy.Problem]bool{}, state: policy.NewState(),
		admitting: map[podKey]int{}, lingering: map[podKey]bool{}, links: cfg.Links,
		ports: ports{daemon: cfg.Daemon}, period: intactPeriod,
	}
	if e.domains, err = newDomainNames(cfg, e.state, time.Now()); err != nil {
		return nil, err
	}
	e.claims = newClaims(cfg.Node, e.state, func(ip netip.Addr) string { return e.ports.byAddr[ip] })
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
	var beside sync.WaitGroup
	beside.Go(func() { e.guards.run(ctx) })
	defer beside.Wait()
	defer func() { e.domains.save(time.Now()) }()
	check := time.NewTimer(e.period)
	defer check.Stop()
	tidy := time.NewTicker(tidyPeriod)
	defer tidy.Stop()
	soon := false                // the check follows a notification
	var collect <-chan time.Time // ends the collection of changes; nil: there are none
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-e.cluster.Changed():
			if collect == nil {
				collect = time.After(debounce)
			}
		case <-collect:
			collect = nil
			e.enforce(ctx)
		case <-e.urgent:
			e.enforce(ctx)
		case answer := <-e.domains.answers:
			if e.domains.learn(answer, time.Now()) {
				e.enforce(ctx) // a pod is about to connect to the address
			}
		case <-e.filtersChanged:
			if !soon {
				soon = true
				check.Reset(intactPause)
			}
		case <-tidy.C:
			if e.state.Stale() {
				e.enforceBy(ctx, e.state.Update)
			}
		case <-check.C:
			e.check(ctx)
			e.expire(ctx, time.Now())
			soon = false
			check.Reset(e.period)
		}
	}
}

// check sets the rules again if another program has changed them, or if they are behind.
func (e *enforcer) check(ctx context.Context) {
	intact, err := e.filter.Intact(ctx)
	switch {
	case err != nil:
		e.log.Warn("checking the rules of policies failed", "err", err)
		return
	case intact:
		e.enforceIfBehind(ctx)
		return
	case e.applied:
		e.log.Warn("the rules of policies were changed by another program: setting them again")
		e.restored.Add(1)
	}
	e.applied = false
	e.enforce(ctx)
}

// expire closes the addresses of domains that are not in use any more.
func (e *enforcer) expire(ctx context.Context, now time.Time) {
	if e.applied && e.domains.expire(e.state.Askers(), now) { // else the pods, so their connections, may not be known yet
		e.enforce(ctx)
	}
	e.domains.save(now)
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

// enforceIfBehind enforces again if a request is not in force, for example because the last attempt failed.
func (e *enforcer) enforceIfBehind(ctx context.Context) {
	e.mu.Lock()
	behind := e.done != e.requested
	e.mu.Unlock()
	if len(e.claims.portless) > 0 && e.ports.search(ctx) {
		e.cluster.Touch(slices.Collect(maps.Keys(e.claims.portless))...)
		behind = true
	}
	for key := range e.lingering {
		if a := e.attached.get(key); a == nil || !e.links.Exists(a.Link) {
			e.cluster.Touch(key)
			behind = true
		}
	}
	if behind || !e.applied {
		e.enforce(ctx)
	}
}

// enforce brings the rules up to the policies of the cluster as it is now. Those that no pod needs any more may stay.
func (e *enforcer) enforce(ctx context.Context) { e.enforceBy(ctx, e.state.Extend) }

// enforceBy is enforce with a choice of how the state is brought up.
func (e *enforcer) enforceBy(ctx context.Context, update func() policy.Change) {
	if missing := e.cluster.Missing(); len(missing) > 0 {
		// An incomplete cache would allow too much or too little: the present rules stay.
		e.health.set(checkPolicies, fmt.Errorf("the API server has not listed: %s", strings.Join(missing, ", ")))
		return
	}
	e.mu.Lock()
	requested := e.requested
	e.mu.Unlock()
	e.follow(ctx)
	change := update()
	if change.Rules != nil {
		e.domains.need(e.state.Domains())
	}
	if err := e.apply(ctx, change); err != nil {
		e.log.Error("policies cannot be enforced", "err", err)
		e.health.set(checkPolicies, err)
		return
	}
	e.health.set(checkPolicies, nil)
	if e.guardsBehind {
		e.guardsBehind = false
		e.guards.want(e.attached.all(), e.claims)
	}
	if full := e.domains.problems(); e.reportBehind || !slices.Equal(full, e.full) {
		e.reportBehind, e.full = false, full
		e.report(slices.Concat(e.state.Problems(), e.unread, full))
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.done = requested
	close(e.waiting)
	e.waiting = make(chan struct{})
}

// apply makes the packet filter enforce a change, or all rules if those in force are not known.
func (e *enforcer) apply(ctx context.Context, change policy.Change) error {
	if e.applied {
		if change.Empty() {
			return nil
		}
		err := e.filter.Change(ctx, change)
		if err == nil {
			return nil
		}
		e.log.Warn("changing the rules of policies failed: setting all of them", "err", err)
	}
	e.applied = false
	if err := e.filter.Apply(ctx, e.state.Ruleset()); err != nil {
		return err // retried at the next check
	}
	e.applied = true
	debug.FreeOSMemory() // all rules as a text took several times the memory that remains in use
	return nil
}

// follow brings the state up to the cluster.
func (e *enforcer) follow(ctx context.Context) {
	changes := e.cluster.Take()
	if !e.started {
		e.started = true
		for key := range e.attached.all() { // the pod may have been deleted while no agent ran
			changes.Pods[key] = true
		}
	}
	if changes.Namespaces {
		e.state.SetNamespaces(e.cluster.Namespaces())
	}
	if changes.Nodes {
		e.state.SetNodes(e.policyNodes(e.cluster.Nodes()))
	}
	if changes.Policies {
		var policies policy.Policies
		policies, e.unread = e.cluster.Policies()
		e.state.SetPolicies(policies)
		e.reportBehind = true
	}
	var gone []podKey
	for key := range changes.Pods {
		if e.followPod(key) {
			gone = append(gone, key)
		}
	}
	if len(gone) > 0 {
		if err := e.attached.remove(gone); err != nil {
			e.log.Warn("removing deleted pods from the attachments failed", "err", err)
		}
	}
	if len(e.claims.portless) > 0 && e.ports.search(ctx) {
		for _, key := range slices.Collect(maps.Keys(e.claims.portless)) {
			e.followPod(key)
		}
	}
}

// followPod brings the claim of a pod up to the cluster and the attachments, and reports whether its attachment has ended.
func (e *enforcer) followPod(key podKey) (ended bool) {
	pod, attached, last := e.cluster.Pod(key), e.attached.get(key), e.claims.last(key)
	local := last != nil
	delete(e.lingering, key)
	if attached != nil && (pod == nil || !pod.Is(attached.UID)) {
		switch {
		case e.isAdmitting(key):
			attached = nil // of a pod that the API server has not announced yet: it stays
		case pod == nil && last != nil && last.Is(attached.UID) && e.links.Exists(attached.Link):
			// The object is gone before the containers: by force, or because the pod has ended.
			deleting := *last
			deleting.Deleting, pod = true, &deleting
			e.lingering[key] = true
		default:
			attached, ended = nil, true
		}
	}
	e.claims.update(key, pod, attached)
	if local || e.claims.last(key) != nil {
		e.guardsBehind, e.reportBehind = true, true // port names in policies are those of pods
	}
	return ended
}

// isAdmitting reports whether an admission of a pod is not answered.
func (e *enforcer) isAdmitting(key podKey) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.admitting[key] > 0
}

// policyNodes returns nodes as policies see them. An alias that is the address of a pod is none.
func (e *enforcer) policyNodes(list []*cluster.Node) []policy.Node {
	out := make([]policy.Node, len(list))
	for i, n := range list {
		out[i] = policy.Node{Name: n.Name, Labels: n.Labels, IPs: n.Addresses}
		out[i].Aliases = slices.DeleteFunc(aliases(n), func(ip netip.Addr) bool { return e.claims.name(ip) != "" })
	}
	return out
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
		e.recorder.Event(&corev1.ObjectReference{
			Kind: p.Kind, Namespace: p.Namespace, Name: p.Name, UID: types.UID(p.UID), APIVersion: cluster.VersionOf(p.Kind),
		}, corev1.EventTypeWarning, "PolicyProblem", p.Message)
	}
	e.reported = now
}

// logDrop logs a dropped packet, with the names of the pods at both ends where they are known.
func (e *enforcer) logDrop(d firewall.Drop) {
	src, dst := e.claims.name(d.Src), e.claims.name(d.Dst)
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
	key := podKey{Namespace: in.Namespace, Name: in.Name}
	e.mu.Lock()
	e.admitting[key]++ // until the answer, the attachment of a pod that the API server has not announced stays
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		if e.admitting[key]--; e.admitting[key] == 0 {
			delete(e.admitting, key)
		}
		e.mu.Unlock()
		e.cluster.Touch(key) // an attachment of a pod that does not come ends now
	}()
	for {
		changed, err := e.attached.add(in)
		e.cluster.Touch(changed...)
		if err != nil {
			return err
		}
		for !e.known(in) {
			if pause(ctx, admitPoll) != nil {
				return late("the API server has not announced the pod")
			}
		}
		e.cluster.Touch(key)
		if !e.enforced(ctx) {
			return late("setting the rules takes too long")
		}
		if a := e.attached.get(key); a != nil && a.UID == in.UID && slices.Equal(a.IPs, in.IPs) && e.known(in) {
			return nil
		}
		if pause(ctx, admitPoll) != nil { // another pod, or another version of it, came between
			return late("another pod has its addresses")
		}
	}
}

// enforced makes the run goroutine enforce the present state, and reports whether that is done; not if ctx has ended first.
func (e *enforcer) enforced(ctx context.Context) bool {
	e.mu.Lock()
	e.requested++
	want := e.requested
	e.mu.Unlock()
	select {
	case e.urgent <- struct{}{}:
	default: // it will see this request as well
	}
	for {
		e.mu.Lock()
		done, waiting := e.done, e.waiting
		e.mu.Unlock()
		if done >= want {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-waiting:
		}
	}
}

// known reports whether the cache of the cluster is complete and contains the pod and its namespace.
func (e *enforcer) known(in api.Admission) bool {
	if !e.cluster.Ready() {
		return false
	}
	p := e.cluster.Pod(podKey{Namespace: in.Namespace, Name: in.Name})
	return p != nil && p.Is(in.UID) && e.cluster.HasNamespace(in.Namespace)
}
