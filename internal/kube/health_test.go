package kube

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"weft/internal/kube/policy"
)

// droppingFilter is a Firewall that has dropped packets, or cannot read its counters.
type droppingFilter struct {
	*fakeFilter
	err error
}

func (f droppingFilter) Dropped(context.Context) (map[policy.Direction]uint64, error) {
	return map[policy.Direction]uint64{policy.Ingress: 7}, f.err
}

// TestMetrics: dropped packets are published by direction, and an unreadable counter fails the scrape.
func TestMetrics(t *testing.T) {
	scrape := func(f droppingFilter) (code int, text string) {
		a := &Agent{cfg: Config{Filter: f}, health: &health{}, enforcer: &enforcer{domains: &domainNames{}}, bridged: &bridged{}}
		a.enforcer.restored.Store(2)
		a.enforcer.domains.known.Store(3)
		a.enforcer.domains.received.Store(4)
		w := httptest.NewRecorder()
		a.healthHandler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		body, err := io.ReadAll(w.Body)
		if err != nil {
			t.Fatal(err)
		}
		return w.Code, string(body)
	}
	_, text := scrape(droppingFilter{})
	for _, want := range []string{
		"# TYPE weft_policy_dropped_packets_total counter",
		`weft_policy_dropped_packets_total{direction="ingress"} 7`,
		`weft_policy_dropped_packets_total{direction="egress"} 0`,
		`weft_policy_restored_total{what="rules"} 2`,
		`weft_policy_restored_total{what="bridged_packets"} 0`,
		"weft_policy_domain_addresses 3",
		"weft_policy_domain_answers_total 4",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if code, text := scrape(droppingFilter{err: errors.New("counters unreadable")}); code != http.StatusInternalServerError {
		t.Errorf("with unreadable counters: %d\n%s", code, text)
	}
}
