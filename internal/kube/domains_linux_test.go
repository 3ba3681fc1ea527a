package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/network-policy-api/apis/v1beta1"

	"weft/internal/kube/domains"
	"weft/internal/kube/firewall"
	"weft/internal/kube/policy"
	"weft/internal/nettest"
	"weft/internal/nettest/labtest"
)

// namesLab is a host with a bridge and pods, and a host outside of the cluster behind it. The policy of the pod "client" allows DNS to any
// server, and all else only to *.example.com.
type namesLab struct {
	*nettest.Host
	pods    map[string]*nettest.Pod
	outside *nettest.Pod
	fw      *firewall.NFT
	cluster *policy.Cluster
	cfg     Config
	state   *policy.State
	names   *domainNames
	stop    func() // ends the reader of names
	now     time.Time
	marks   byte // how many names learned has asked for
}

// Addresses of the lab.
const (
	clientIP, clientIP6     = "10.32.0.1", "fd32::1"
	resolverIP, resolverIP6 = "10.32.0.9", "fd32::9"
	otherIP                 = "10.32.0.66"
	hostIP                  = "10.32.100.1"
	serviceIP               = "10.96.0.10"
	outsideIP               = "192.0.2.2"
)

func newNamesLab(t *testing.T) *namesLab {
	t.Helper()
	h := labtest.AddHost(t, labtest.New(t, nettest.Config{}), "host")
	n := &namesLab{Host: h, pods: map[string]*nettest.Pod{}, outside: labtest.AddPod(t, h, "outside"), now: time.Now(), stop: func() {}}
	run := func(s *nettest.Space, lines ...string) {
		for _, line := range lines {
			labtest.Run(t, s, strings.Fields(line)...)
		}
	}
	run(h.Space,
		"ip link add weave type bridge mcast_snooping 0", "ip addr add "+hostIP+"/12 dev weave",
		"ip addr add fd32::100:1/64 dev weave nodad", "ip link set weave up",
		"sysctl -qw net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1",
		"sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
		"ip link add out0 type veth peer name eth0 netns "+n.outside.Name(), "ip addr add 192.0.2.1/24 dev out0",
		"ip addr add 2001:db8::1/64 dev out0 nodad", "ip link set out0 up",
		// As NodeLocal DNSCache exempts its packets.
		"nft add table ip cache", "nft add chain ip cache output { type filter hook output priority raw; }",
		"nft add rule ip cache output ip saddr "+hostIP+" udp sport 53 notrack",
		"nft add table ip service", "nft add chain ip service prerouting { type nat hook prerouting priority dstnat; }",
		"nft add rule ip service prerouting ip daddr "+serviceIP+" udp dport 53 dnat to "+resolverIP+":5353")
	run(n.outside.Space, "ip addr add "+outsideIP+"/24 dev eth0", "ip addr add 192.0.2.7/24 dev eth0", "ip addr add 192.0.2.8/24 dev eth0",
		"ip addr add 192.0.2.9/24 dev eth0", "ip addr add 2001:db8::7/64 dev eth0 nodad", "ip link set eth0 up",
		"ip route add default via 192.0.2.1", "ip -6 route add default via 2001:db8::1")
	n.cluster = &policy.Cluster{Namespaces: map[string]policy.Labels{"x": {"policies": "on"}, "y": {}, "kube-system": {}}}
	for _, p := range []*policy.Pod{
		{Namespace: "x", Name: "client", IPs: []netip.Addr{netip.MustParseAddr(clientIP), netip.MustParseAddr(clientIP6)}},
		{Namespace: "kube-system", Name: "dns", Labels: policy.Labels{"k8s-app": "kube-dns"},
			IPs: []netip.Addr{netip.MustParseAddr(resolverIP), netip.MustParseAddr(resolverIP6)}},
		{Namespace: "y", Name: "other", Labels: policy.Labels{"k8s-app": "kube-dns"}, IPs: []netip.Addr{netip.MustParseAddr(otherIP)}},
	} {
		p.Local, p.Link = true, "vw"+p.Name
		pod := labtest.AddPod(t, h, p.Name)
		run(h.Space, "ip link add "+p.Link+" type veth peer name eth0 netns "+pod.Name(), "ip link set "+p.Link+" master weave up")
		run(pod.Space, "ip link set eth0 up")
		for _, ip := range p.IPs {
			length, option, gateway := "/12", "", hostIP
			if ip.Is6() {
				length, option, gateway = "/64", " nodad", "fd32::100:1"
			}
			run(pod.Space, "ip addr add "+ip.String()+length+" dev eth0"+option, "ip route add default via "+gateway)
		}
		n.pods[p.Name] = pod
		n.cluster.Pods = append(n.cluster.Pods, p)
	}
	n.cluster.Cluster = []*v1beta1.ClusterNetworkPolicy{namesPolicy()}
	n.do(t, func() (err error) { n.fw, err = firewall.New(t.Context()); return err })
	t.Cleanup(func() { _ = n.fw.Close() })
	b := newBench(t)
	n.cfg = b.cfg
	n.cfg.Answers, n.cfg.Connections = firewall.NFLog{}, firewall.Conntrack{}
	n.start(t)
	t.Cleanup(func() { n.stop() })
	return n
}

// namesPolicy returns the policy of the client.
func namesPolicy() *v1beta1.ClusterNetworkPolicy {
	k := &v1beta1.ClusterNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "names"}}
	k.Spec.Tier = v1beta1.AdminTier
	k.Spec.Subject.Namespaces = &metav1.LabelSelector{MatchLabels: map[string]string{"policies": "on"}}
	all := []v1beta1.ClusterNetworkPolicyEgressPeer{{Networks: []v1beta1.CIDR{"0.0.0.0/0", "::/0"}}}
	port := &v1beta1.Port{Number: 53}
	port5353 := &v1beta1.Port{Number: 5353}
	k.Spec.Egress = []v1beta1.ClusterNetworkPolicyEgressRule{
		{Action: "Accept", To: all, Protocols: []v1beta1.ClusterNetworkPolicyProtocol{
			{UDP: &v1beta1.ClusterNetworkPolicyProtocolUDP{DestinationPort: port}},
			{UDP: &v1beta1.ClusterNetworkPolicyProtocolUDP{DestinationPort: port5353}},
			{TCP: &v1beta1.ClusterNetworkPolicyProtocolTCP{DestinationPort: port}},
		}},
		{Action: "Accept", To: []v1beta1.ClusterNetworkPolicyEgressPeer{{DomainNames: []v1beta1.DomainName{"*.example.com"}}}},
		{Action: "Deny", To: all},
	}
	return k
}

func (n *namesLab) do(t *testing.T, f func() error) {
	t.Helper()
	if err := n.Do(f); err != nil {
		t.Fatal(err)
	}
}

// start makes a new enforcement follow the old one, as at a restart of weft-kube.
func (n *namesLab) start(t *testing.T) {
	t.Helper()
	n.stop()
	n.state = policy.NewState()
	var err error
	if n.names, err = newDomainNames(n.cfg, n.state, n.now); err != nil {
		t.Fatal(err)
	}
	n.state.SetNamespaces(n.cluster.Namespaces)
	n.state.SetPolicies(n.cluster.Policies)
	for _, p := range n.cluster.Pods {
		n.state.SetPod(p)
	}
	n.state.Update()
	n.names.need(n.state.Domains())
	n.do(t, func() error { return n.fw.Apply(t.Context(), n.state.Ruleset()) })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	names := n.names
	go func() { done <- n.Do(func() error { return names.run(ctx) }) }()
	n.stop = func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		names.save(n.now)
		n.stop = func() {}
	}
}

// serve answers A and AAAA queries by a function until the test ends. It answers a name for which the function returns no address with an
// error, and "silent." not at all.
func (n *namesLab) serve(t *testing.T, s *nettest.Space, addr string, resolve func(name string, kind uint16) string) {
	t.Helper()
	h := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		name, kind := q.Question[0].Name, q.Question[0].Qtype
		if strings.HasPrefix(name, "silent.") {
			return
		}
		if ip := resolve(name, kind); ip == "" {
			m.Rcode = dns.RcodeNameError
		} else if r, err := dns.NewRR(fmt.Sprintf("%s 5 %s %s", name, dns.TypeToString[kind], ip)); err == nil {
			m.Answer = []dns.RR{r}
		}
		_ = w.WriteMsg(m)
	})
	udp, tcp := &dns.Server{Handler: h}, &dns.Server{Handler: h}
	if err := s.Do(func() (err error) {
		var lc net.ListenConfig
		if udp.PacketConn, err = lc.ListenPacket(t.Context(), "udp", addr); err != nil {
			return err
		}
		tcp.Listener, err = lc.Listen(t.Context(), "tcp", addr)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for _, server := range []*dns.Server{udp, tcp} {
		ended := make(chan error, 1)
		up := make(chan struct{})
		server.NotifyStartedFunc = func() { close(up) }
		go func() { ended <- server.ActivateAndServe() }()
		<-up
		t.Cleanup(func() { _, _ = server.Shutdown(), <-ended })
	}
}

// ask has the client ask a server.
func (n *namesLab) ask(t *testing.T, network, server, name string, kind uint16) error {
	t.Helper()
	return n.pods["client"].Do(func() error {
		c := dns.Client{Net: network, Timeout: 2 * time.Second}
		_, _, err := c.ExchangeContext(t.Context(), new(dns.Msg).SetQuestion(name, kind), net.JoinHostPort(server, "53"))
		return err
	})
}

// marks are the addresses of the names that learned asks for.
var marks = netip.MustParsePrefix("198.51.100.0/24")

// learned asks the trusted server for a new name, so that all answers before have arrived, and enforces them. It returns the addresses that
// are known now, less those of its own names.
func (n *namesLab) learned(t *testing.T) (known []string) {
	t.Helper()
	n.marks++
	mark := netip.AddrFrom4([4]byte{198, 51, 100, n.marks})
	if err := n.ask(t, "udp", resolverIP, fmt.Sprintf("%d.mark.example.com.", n.marks), dns.TypeA); err != nil {
		t.Fatal(err)
	}
	for !slices.Contains(n.names.table.Addrs("*.example.com"), mark) {
		select {
		case a := <-n.names.answers: // as the enforcer does
			if n.names.learn(a, n.now) {
				n.do(t, func() error { return n.fw.Change(t.Context(), n.state.Update()) })
			}
		case <-time.After(5 * time.Second):
			t.Fatal("no answer arrives")
		}
	}
	for _, ip := range n.names.table.Addrs("*.example.com") {
		if !marks.Contains(ip) {
			known = append(known, ip.String())
		}
	}
	return known
}

// connect has the client connect to port 443 of an address.
func (n *namesLab) connect(ip string) (conn net.Conn, err error) {
	err = n.pods["client"].Do(func() error {
		d := net.Dialer{Timeout: time.Second}
		conn, err = d.Dial("tcp", net.JoinHostPort(ip, "443"))
		return err
	})
	return conn, err
}

// want checks whether the client reaches an address.
func (n *namesLab) want(t *testing.T, when, ip string, open bool) {
	t.Helper()
	conn, err := n.connect(ip)
	if err == nil {
		_ = conn.Close()
	}
	if (err == nil) != open {
		t.Errorf("%s: connection to %s: %v, want open: %v", when, ip, err, open)
	}
}

// later lets time pass for the addresses.
func (n *namesLab) later(t *testing.T, d time.Duration) {
	t.Helper()
	n.now = n.now.Add(d)
	n.do(t, func() error {
		if n.names.expire(n.state.Askers(), n.now) {
			return n.fw.Change(t.Context(), n.state.Update())
		}
		return nil
	})
}

// ends lets time pass until no address is known. Connections have been closed, but the kernel still tracks them.
func (n *namesLab) ends(t *testing.T) {
	t.Helper()
	n.later(t, domains.MinKeep)
	labtest.Until(t, 10*time.Second, func() error {
		n.later(t, domains.OpenKeep+lookPause)
		if known := n.names.table.Addrs("*.example.com"); len(known) > 0 {
			return fmt.Errorf("still open: %v", known)
		}
		return nil
	})
}

// newServers starts the DNS servers of the lab, and the server that the client connects to.
func (n *namesLab) newServers(t *testing.T) {
	t.Helper()
	trusted := func(name string, kind uint16) string {
		switch {
		case strings.HasSuffix(name, ".mark.example.com."):
			return "198.51.100." + name[:strings.Index(name, ".")]
		case kind == dns.TypeA && strings.EqualFold(name, "www.example.com."), name == "www.example.org.":
			return "192.0.2.7"
		case kind == dns.TypeAAAA && name == "www.example.com.":
			return "2001:db8::7"
		}
		return ""
	}
	for _, addr := range []string{":53", ":5353"} {
		n.serve(t, n.pods["dns"].Space, addr, trusted)
	}
	lie := func(string, uint16) string { return "192.0.2.8" }
	n.serve(t, n.pods["other"].Space, otherIP+":53", lie)
	n.serve(t, n.outside.Space, outsideIP+":53", lie)
	n.serve(t, n.Space, hostIP+":53", func(string, uint16) string { return "192.0.2.9" })
	var l net.Listener
	if err := n.outside.Do(func() (err error) { l, err = net.Listen("tcp", ":443"); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			} else if err == nil {
				go func() { _, _ = io.Copy(conn, conn); _ = conn.Close() }()
			}
		}
	}()
	labtest.Until(t, 10*time.Second, func() error { // the reader has begun
		if err := n.ask(t, "udp", resolverIP, "0.mark.example.com.", dns.TypeA); err != nil {
			return err
		}
		select {
		case <-n.names.answers:
			return nil
		case <-time.After(50 * time.Millisecond):
			return errors.New("no answer is read")
		}
	})
}

// TestNamesInKernel: an address is open once the cluster's DNS, or the node, has given it to a name that the policy accepts; over UDP, TCP,
// a Service and IPv6. It is closed later, unless a connection is open, also after a restart.
func TestNamesInKernel(t *testing.T) {
	n := newNamesLab(t)
	n.newServers(t)
	n.want(t, "before an answer", "192.0.2.7", false)
	for _, q := range []struct {
		network, server, name string
		kind                  uint16
		opens                 string
	}{
		{"udp", resolverIP, "www.example.org.", dns.TypeA, ""},
		{"udp", resolverIP, "no.example.com.", dns.TypeA, ""},
		{"udp", resolverIP, "WWW.example.com.", dns.TypeA, "192.0.2.7"},
		{"tcp", resolverIP, "www.example.com.", dns.TypeA, "192.0.2.7"},
		{"udp", serviceIP, "www.example.com.", dns.TypeA, "192.0.2.7"},
		{"udp", resolverIP6, "www.example.com.", dns.TypeA, "192.0.2.7"},
		{"udp", resolverIP, "www.example.com.", dns.TypeAAAA, "2001:db8::7"},
		{"tcp", resolverIP6, "www.example.com.", dns.TypeAAAA, "2001:db8::7"},
		{"udp", hostIP, "www.example.com.", dns.TypeA, "192.0.2.9"},
		{"tcp", hostIP, "www.example.com.", dns.TypeA, "192.0.2.9"},
	} {
		what := fmt.Sprintf("%s %s at %s, %s", q.name, dns.TypeToString[q.kind], q.server, q.network)
		if err := n.ask(t, q.network, q.server, q.name, q.kind); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		known := n.learned(t)
		if q.opens == "" {
			if len(known) > 0 {
				t.Errorf("%s: %v", what, known)
			}
			n.want(t, what, "192.0.2.7", false)
			continue
		}
		if !slices.Equal(known, []string{q.opens}) {
			t.Errorf("%s: known are %v", what, known)
		}
		n.want(t, what, q.opens, true)
		n.ends(t)
		n.want(t, what+", later", q.opens, false)
	}

	if err := n.ask(t, "udp", resolverIP, "www.example.com.", dns.TypeA); err != nil {
		t.Fatal(err)
	}
	n.learned(t)
	conn, err := n.connect("192.0.2.7")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	echoes := func(when string, want bool) {
		t.Helper()
		_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
		_, err := conn.Write([]byte("x"))
		if err == nil {
			_, err = conn.Read(make([]byte, 1))
		}
		if (err == nil) != want {
			t.Errorf("%s: %v", when, err)
		}
	}
	n.later(t, domains.MinKeep+lookPause)
	echoes("an open connection after the time", true)
	n.start(t)
	echoes("an open connection after a restart", true)
	n.want(t, "after a restart", "192.0.2.7", true)
	_ = conn.Close()
	n.ends(t)
	n.want(t, "without a connection", "192.0.2.7", false)

	n.state.SetPolicies(policy.Policies{})
	n.do(t, func() error { return n.fw.Change(t.Context(), n.state.Update()) })
	if rules := labtest.Run(t, n.Space, "nft", "list", "table", "inet", firewall.Table); strings.Contains(rules, "log group 6781") {
		t.Errorf("without policies, answers are copied:\n%s", rules)
	}
}

// TestUntrustedAnswers: answers of a pod that is none of the cluster's DNS, of a server outside, and forged ones of the cluster's DNS and
// of the node open nothing.
func TestUntrustedAnswers(t *testing.T) {
	n := newNamesLab(t)
	n.newServers(t)
	nothing := func(what string) {
		t.Helper()
		if known := n.learned(t); len(known) > 0 {
			t.Errorf("%s: %v", what, known)
		}
		n.want(t, what, "192.0.2.8", false)
	}
	for _, network := range []string{"udp", "tcp"} {
		for _, server := range []string{otherIP, outsideIP} {
			if err := n.ask(t, network, server, "www.example.com.", dns.TypeA); err != nil {
				t.Fatal(err)
			}
			nothing(network + " of " + server)
		}
	}
	// The client waits for an answer of a server. Another pod, and the host outside, which knows all numbers, send one in its name.
	for _, server := range []string{resolverIP, hostIP} {
		for forger, s := range map[string]*nettest.Space{"another pod": n.pods["other"].Space, "a host outside": n.outside.Space} {
			n.forge(t, s, server)
			nothing(fmt.Sprintf("%s in the name of %s", forger, server))
		}
	}
	// Without a question.
	n.do(t, func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) })
	query := new(dns.Msg).SetQuestion("www.example.com.", dns.TypeA)
	n.send(t, n.pods["dns"].Space, "", lieTo(t, query), 4001)
	nothing("an answer without a question")
}

// lieTo returns an answer with an address that no server has given.
func lieTo(t *testing.T, query *dns.Msg) []byte {
	t.Helper()
	m := new(dns.Msg).SetReply(query)
	r, err := dns.NewRR("www.example.com. 5 A 192.0.2.8")
	if err != nil {
		t.Fatal(err)
	}
	m.Answer = []dns.RR{r}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// forge has the client ask a server a question that it leaves open, and then a forger answer it.
func (n *namesLab) forge(t *testing.T, forger *nettest.Space, server string) {
	t.Helper()
	const port = 4000
	query := new(dns.Msg).SetQuestion("silent.example.com.", dns.TypeA)
	question, err := query.Pack()
	if err != nil {
		t.Fatal(err)
	}
	if err := n.pods["client"].Do(func() error {
		conn, err := net.DialUDP("udp", &net.UDPAddr{Port: port}, &net.UDPAddr{IP: net.ParseIP(server), Port: 53})
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		_, err = conn.Write(question)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	n.send(t, forger, server, lieTo(t, query), port)
}

// send sends a message to the client from port 53 of an address, which the sender gives itself if it is not empty.
func (n *namesLab) send(t *testing.T, s *nettest.Space, from string, message []byte, port int) {
	t.Helper()
	local := &net.UDPAddr{Port: 53}
	if from != "" {
		labtest.Run(t, s, "sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=8") // the address stays that of its owner
		labtest.Run(t, s, "ip", "addr", "add", from+"/32", "dev", "lo")
		defer labtest.Run(t, s, "ip", "addr", "del", from+"/32", "dev", "lo")
		local.IP = net.ParseIP(from)
	} else {
		local.Port = 5454
	}
	if err := s.Do(func() error {
		conn, err := net.DialUDP("udp", local, &net.UDPAddr{IP: net.ParseIP(clientIP), Port: port})
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		_, err = conn.Write(message)
		return err
	}); err != nil {
		t.Fatal(err)
	}
}
