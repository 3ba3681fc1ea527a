package kube

import (
	"context"
	"errors"
	"net/netip"
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
)

// fakeAnswers is an AnswerLog and a ConnectionTable.
type fakeAnswers struct {
	packets chan []byte
	fails   int // how often Answers fails at once
	open    []netip.Addr
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
	for _, server := range f.open {
		visit(netip.MustParseAddr("10.32.0.1"), server)
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
	return e, func() { cancel(); <-done; stop() }
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
		applied := b.filter.applied
		time.Sleep(5 * time.Minute)
		f.packets <- answer(t, "WWW.example.com.", "192.0.2.7")
		time.Sleep(9 * time.Minute)
		want("after a further answer", "192.0.2.7", true)
		if b.filter.applied != applied {
			t.Error("rules were set for a known address")
		}
		stop()

		f.open = []netip.Addr{netip.MustParseAddr("192.0.2.7")}
		_, stop = b.resolving(t)
		want("after a restart", "192.0.2.7", true)
		time.Sleep(30 * time.Minute)
		want("with an open connection", "192.0.2.7", true)
		if n := f.looked.Load(); n == 0 || n > 31 {
			t.Errorf("looked %d times at the connections in half an hour", n)
		}
		f.open = nil
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
