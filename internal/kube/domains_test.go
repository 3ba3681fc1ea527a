package kube

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"weft/internal/kube/domains"
	"weft/internal/kube/policy"
)

// fakeAnswers is an AnswerLog and a ConnectionTable.
type fakeAnswers struct {
	packets chan []byte
	fails   int          // how often Answers fails at once
	open    atomic.Bool  // a pod has a connection to 192.0.2.7
	looked  atomic.Int64 // calls of Connections
}

func (f *fakeAnswers) Answers(ctx context.Context, report func([]byte)) error {
	if f.fails > 0 {
		f.fails--
		return errors.New("the log group is taken")
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case p := <-f.packets:
			report(p)
		}
	}
}

func (f *fakeAnswers) Connections(visit func(client, server netip.Addr)) error {
	f.looked.Add(1)
	if f.open.Load() {
		visit(netip.MustParseAddr("10.32.0.1"), netip.MustParseAddr("192.0.2.7"))
	}
	visit(netip.MustParseAddr("10.32.0.77"), netip.MustParseAddr("192.0.2.7")) // of a pod without such rules
	return nil
}

// answer returns the packet with an answer of the cluster's DNS.
func answer(t *testing.T, name, ip string) []byte {
	t.Helper()
	m := new(dns.Msg).SetQuestion(name, dns.TypeA)
	m.Response = true
	r, err := dns.NewRR(name + " 5 A " + ip)
	if err != nil {
		t.Fatal(err)
	}
	m.Answer = []dns.RR{r}
	payload, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	src, dst := netip.MustParseAddr("10.32.0.9"), netip.MustParseAddr("10.32.0.1")
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true},
		&layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()},
		&layers.UDP{SrcPort: 53, DstPort: 4000}, gopacket.Payload(payload)); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// newNamesBench returns a bench with a pod and a ClusterNetworkPolicy that accepts *.example.com only.
func newNamesBench(t *testing.T) (*bench, *fakeAnswers) {
	t.Helper()
	b := newBench(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}}, newPod("web", "node1", nil, "10.32.0.1"))
	clusterPolicies := b.serve("v1beta1", "clusternetworkpolicies")
	to := func(action, field, value string) map[string]any {
		return map[string]any{"action": action, "to": []any{map[string]any{field: []any{value}}}}
	}
	object := map[string]any{
		"apiVersion": "policy.networking.k8s.io/v1beta1", "kind": "ClusterNetworkPolicy", "metadata": map[string]any{"name": "names"},
		"spec": map[string]any{
			"tier": "Admin", "priority": int64(1), "subject": map[string]any{"namespaces": map[string]any{}},
			"egress": []any{to("Accept", "domainNames", "*.example.com"), to("Deny", "networks", "0.0.0.0/0")},
		},
	}
	u := &unstructured.Unstructured{Object: object}
	if _, err := b.cfg.Dynamic.Resource(clusterPolicies).Create(t.Context(), u, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	f := &fakeAnswers{packets: make(chan []byte)}
	b.cfg.Answers, b.cfg.Connections = f, f
	return b, f
}

// resolving runs an enforcer with its reader of answers until the returned function is called.
func (b *bench) resolving(t *testing.T) (*enforcer, func()) {
	t.Helper()
	e, stop := b.enforcing(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.domains.run(ctx) }()
	time.Sleep(answersPause + time.Second) // of the bubble
	return e, func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		stop()
	}
}

// TestNames: an address of a name that a policy accepts is open at once, for ten minutes after the last answer, and longer while a
// connection to it is open; also after a restart.
func TestNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, f := newNamesBench(t)
		f.fails = 1
		e, stop := b.resolving(t)
		want := func(when, ip string, open bool) {
			t.Helper()
			synctest.Wait()
			if got := b.filter.has(ip); got != open {
				t.Errorf("%s: %s is open: %v, want %v", when, ip, got, open)
			}
		}
		want("without an answer", "192.0.2.7", false)
		f.packets <- answer(t, "www.example.com.", "192.0.2.7")
		want("after an answer", "192.0.2.7", true)
		f.packets <- answer(t, "www.example.org.", "192.0.2.8")
		f.packets <- answer(t, "example.com.", "192.0.2.8")
		f.packets <- []byte{0x45}
		want("after answers to other names", "192.0.2.8", false)
		if n := e.domains.received.Load(); n != 1 {
			t.Errorf("%d answers", n)
		}
		b.filter.mu.Lock()
		applied := b.filter.applied
		b.filter.mu.Unlock()
		time.Sleep(5 * time.Minute)
		f.packets <- answer(t, "WWW.example.com.", "192.0.2.7")
		time.Sleep(9 * time.Minute)
		want("after a further answer", "192.0.2.7", true)
		b.filter.mu.Lock()
		if b.filter.applied != applied {
			t.Error("rules were set for a known address")
		}
		b.filter.mu.Unlock()
		stop()

		f.open.Store(true)
		_, stop = b.resolving(t)
		want("after a restart", "192.0.2.7", true)
		time.Sleep(30 * time.Minute)
		want("with an open connection", "192.0.2.7", true)
		if n := f.looked.Load(); n == 0 || n > 31 {
			t.Errorf("looked %d times at the connections in half an hour", n)
		}
		f.open.Store(false)
		time.Sleep(3 * lookPause)
		want("when it is closed", "192.0.2.7", false)
		looked := f.looked.Load()
		time.Sleep(10 * time.Minute)
		if f.looked.Load() != looked {
			t.Error("looked at the connections although no address ends")
		}
		stop()
		_, stop = b.resolving(t)
		defer stop()
		want("after another restart", "192.0.2.7", false)
	})
}

// TestNoPods: while no pod has a rule by domain name, addresses stay longer, and no connection is looked at.
func TestNoPods(t *testing.T) {
	b, f := newNamesBench(t)
	start := time.Now()
	d, err := newDomainNames(b.cfg, policy.NewState(), start)
	if err != nil {
		t.Fatal(err)
	}
	d.need([]policy.Domain{"*.example.com"})
	a := domains.Answer{Name: "www.example.com", Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.7")}}
	if !d.learn(a, start) {
		t.Fatal("no new address")
	}
	if d.expire(nil, start.Add(domains.MinKeep+lookPause)) || !d.expire(nil, start.Add(2*domains.MinKeep)) {
		t.Error("the address did not stay for twice the time")
	}
	if n := f.looked.Load(); n > 1 {
		t.Errorf("looked %d times at the connections", n)
	}
	b.cfg.RunDir = filepath.Join(b.cfg.RunDir, "missing")
	if d, err = newDomainNames(b.cfg, policy.NewState(), start); err != nil || d.table.Len() != 0 {
		t.Errorf("without a file: %v", err)
	}
}

// TestManyAddresses: a domain with too many addresses is an event of the policy.
func TestManyAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, f := newNamesBench(t)
		e, stop := b.resolving(t)
		defer stop()
		for i := range 1100 {
			f.packets <- answer(t, "www.example.com.", netip.AddrFrom4([4]byte{100, 0, byte(i >> 8), byte(i)}).String())
		}
		synctest.Wait()
		e.mu.Lock()
		defer e.mu.Unlock()
		for p := range e.reported {
			if p.Name != "names" || !strings.Contains(p.Message, `"*.example.com" has too many addresses`) {
				t.Errorf("%+v", p)
			}
		}
		if len(e.reported) != 1 || e.domains.known.Load() != 1000 {
			t.Errorf("%d problems, %d addresses", len(e.reported), e.domains.known.Load())
		}
	})
}
