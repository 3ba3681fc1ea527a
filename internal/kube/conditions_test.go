package kube

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"weft/internal/api"
)

// eventLog is a recorder that keeps the events, as "TYPE REASON MESSAGE".
type eventLog struct {
	t      *testing.T
	events []string
}

func (l *eventLog) Event(o runtime.Object, kind, reason, message string) {
	ref, ok := o.(*corev1.ObjectReference)
	if !ok || ref.Kind != "Node" || ref.Name != "node1" || ref.UID != "node1" || ref.Namespace != "" {
		l.t.Errorf("event of %+v", o)
	}
	l.events = append(l.events, kind+" "+reason+" "+message)
}

func (l *eventLog) Eventf(o runtime.Object, kind, reason, format string, args ...any) {
	l.Event(o, kind, reason, fmt.Sprintf(format, args...))
}

func (l *eventLog) AnnotatedEventf(o runtime.Object, _ map[string]string, kind, reason, format string, args ...any) {
	l.Event(o, kind, reason, fmt.Sprintf(format, args...))
}

// TestConditionEvents: a condition has one event when it begins, also over restarts of weft-kube and of the daemon, one an hour while it
// lasts, and one when it has ended.
func TestConditionEvents(t *testing.T) {
	b := newBench(t)
	log := &eventLog{t: t}
	start := func() *conditions {
		t.Helper()
		c, err := newConditions(b.cfg, log)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := start()
	now := time.Now()
	flushed := api.Condition{
		Code: "host_ports_flushed", Severity: api.SeverityWarning, Title: "published ports were removed", Text: "Port 80 was removed.",
		Remedy: "Restart the containers.", Since: now,
	}
	const begins = "Warning HostPortsFlushed Port 80 was removed. Restart the containers."
	const ends = "Normal HostPortsFlushedEnded Ended: published ports were removed. Port 80 was removed."
	// step moves the clock, reports conditions, and compares the events of that.
	step := func(name string, after time.Duration, present []api.Condition, want ...string) {
		t.Helper()
		now, log.events = now.Add(after), nil
		c.observe(now, present)
		if !slices.Equal(log.events, want) {
			t.Errorf("%s: events %q, want %q", name, log.events, want)
		}
	}
	is := []api.Condition{flushed}
	step("young", time.Second, is)
	step("lasting", 10*time.Second, is, begins)
	step("still", time.Second, is)
	is[0].Text = "Ports 80 and 81 were removed."
	step("another text", time.Second, is)
	c = start()
	step("restart of weft-kube", time.Second, is)
	is[0].Text, is[0].Since = flushed.Text, now
	step("restart of the daemon", 20*time.Second, is)
	step("gone for a moment", time.Second, nil)
	step("back", 20*time.Second, is)
	step("an hour", time.Hour, is, begins)
	second := flushed
	second.Text, second.Since = "Port 90 was removed.", now.Add(-time.Minute)
	step("a second one", time.Second, append(is, second), "Warning HostPortsFlushed Port 90 was removed. Restart the containers.")
	step("gone", time.Second, []api.Condition{second})
	c = start()
	step("gone, after a restart", time.Second, []api.Condition{second})
	step("ended", 30*time.Second, []api.Condition{second}, ends)
	step("info", time.Minute, []api.Condition{second, {Code: "x", Severity: api.SeverityInfo, Since: now.Add(-time.Hour)}})
}

// TestLongConditions: a message has at most what the API accepts, keeps the remedy, and is valid UTF-8.
func TestLongConditions(t *testing.T) {
	remedy := `Run "weft status".`
	got := messageOf(api.Condition{Text: strings.Repeat("ä", 2000), Remedy: remedy})
	if len(got) > maxEventMessage || len(got) < maxEventMessage-4 || !strings.HasSuffix(got, "… "+remedy) || !utf8.ValidString(got) {
		t.Errorf("%d bytes: %q", len(got), got)
	}
	if got := messageOf(api.Condition{Text: "Text.", Remedy: strings.Repeat("x", 2000)}); len(got) > maxEventMessage {
		t.Errorf("%d bytes", len(got))
	}
	if got := messageOf(api.Condition{Text: "Node \x1b[2J.\n", Remedy: "\u202eRun it."}); got != "Node .[2J.. .Run it." {
		t.Errorf("characters that change a terminal: %q", got)
	}
	if got := messageOf(api.Condition{Text: "Text."}); got != "Text." {
		t.Errorf("%q", got)
	}
}

// TestAgentPublishesConditions: the events come from weft and from this node, which the admission policy of the manifest requires, and
// reach the API server.
func TestAgentPublishesConditions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, newNode("node1", "172.30.0.11", 1))
		b.daemon.status.Conditions = []api.Condition{{
			Code: "kernel_path_down", Severity: api.SeverityWarning, Title: "no kernel path", Text: "There is none.",
			Since: time.Now().Add(-time.Minute),
		}}
		a, err := New(b.cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer a.enforcer.events.Shutdown()
		for range 2 {
			if err := a.lookAtDaemon(t.Context()); err != nil {
				t.Error(err)
			}
		}
		synctest.Wait()
		list, err := b.api.CoreV1().Events("").List(t.Context(), metav1.ListOptions{})
		if err != nil || len(list.Items) != 1 {
			t.Fatalf("%v, %v", list, err)
		}
		e := list.Items[0]
		if e.Reason != "KernelPathDown" || e.Source.Component != "weft" || e.Source.Host != "node1" || e.Namespace != "default" ||
			e.InvolvedObject.UID != "node1" || e.Count != 1 {
			t.Errorf("%+v", e)
		}
	})
}
