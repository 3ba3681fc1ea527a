package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"weft/internal/api"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
)

// pageOf returns the URL of a node's status page in the namespace of this process. A TCP proxy connects the two namespaces.
func pageOf(t *testing.T, n *cluster.Node) string {
	t.Helper()
	proxy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = proxy.Close() })
	go func() {
		for {
			outer, err := proxy.Accept()
			if err != nil {
				return
			}
			go forward(n, outer)
		}
	}()
	return "http://" + proxy.Addr().String()
}

// forward copies data between a connection and the HTTP port of a node until either side ends.
func forward(n *cluster.Node, outer net.Conn) {
	defer outer.Close()
	var inner net.Conn
	if err := n.Space.Do(func() (err error) {
		inner, err = net.Dial("tcp", "127.0.0.1:6782")
		return err
	}); err != nil {
		return
	}
	defer inner.Close()
	var both sync.WaitGroup
	for _, pair := range [][2]net.Conn{{outer, inner}, {inner, outer}} {
		both.Go(func() {
			_, _ = io.Copy(pair[0], pair[1])
			_ = pair[0].Close()
			_ = pair[1].Close()
		})
	}
	both.Wait()
}

// shownPeers is the table of peers of a page, a row in a line, in the order of their IDs.
const shownPeers = `[...document.querySelectorAll("tr[data-peer]")].map(row => [row.dataset.peer,
	...["name", "addr", "state", "link", "carrier", "cipher", "mtu"].map(name => row.querySelector("[data-field=" + name + "]")?.textContent)
].join(" ")).sort().join("\n")`

// sameAsCommand returns an error if the page differs from the output of "weft peers --json".
func (b *browser) sameAsCommand(t *testing.T, n *cluster.Node) error {
	t.Helper()
	var rows []string
	for _, p := range query[[]api.Peer](t, n, "peers") {
		link, carrier, mtu := string(p.Link), "", ""
		if p.Link == api.LinkDirect {
			carrier = map[api.Datapath]string{api.DatapathKernel: "by the kernel, vxlan", api.DatapathUserspace: "in userspace"}[p.Datapath]
		}
		if p.Self || p.State != api.PeerAlive {
			link = "–"
		}
		if p.State == api.PeerAlive {
			mtu = fmt.Sprintf("%d\u202f%d", p.MTU/1000, p.MTU%1000)
		}
		row := []string{p.ID.String(), p.Name, p.Addr.String(), string(p.State), link, carrier, string(p.Cipher), mtu}
		rows = append(rows, strings.Join(row, " "))
	}
	slices.Sort(rows)
	if got, want := b.text(t, shownPeers), strings.Join(rows, "\n"); got != want {
		return fmt.Errorf("the page shows\n%s\nweft peers\n%s", got, want)
	}
	return nil
}

// TestStatusPage: a browser shows the same peers as "weft peers" and updates when a node dies, without errors. The page
// works with the keyboard, with a screen reader, on a phone, in dark mode and without JavaScript.
func TestStatusPage(t *testing.T) {
	nodes := newNodes(t, "a", "b", "c")
	startSealed(t, nodes, newSecret(t))
	pods := []*pod{attach(t, nodes[0], "p"), attach(t, nodes[1], "p"), attach(t, nodes[2], "p")}
	pods[0].reaches(t, pods[1].addr, pods[2].addr)
	url := pageOf(t, nodes[0])
	b := newBrowser(t)
	b.look(t, 1280, "light")
	b.load(t, url)
	labtest.Until(t, patience, func() error { return b.sameAsCommand(t, nodes[0]) })
	if age := b.text(t, `document.querySelector("#age").innerText`); age != "Live," {
		t.Errorf("the page that is updated says %q of its age", age)
	}
	const drawn = `String(document.querySelectorAll(".dot circle").length + " " + document.querySelectorAll(".arc").length)`
	if n := b.text(t, drawn); n != "3 3" {
		t.Errorf("%s nodes and arcs are drawn, want 3 of each", n)
	}
	if w := b.text(t, `document.querySelector("#warnings").innerText`); !strings.Contains(w, "No warnings") {
		t.Errorf("the warnings of a network without problems: %s", w)
	}
	for _, want := range []string{"this host", "namespace /run/netns/", " eth0", pods[0].addr.String()} {
		if shown := b.text(t, `document.querySelector("#pods").innerText`); !strings.Contains(shown, want) {
			t.Errorf("no %q in the table of pods: %s", want, shown)
		}
	}
	transferBoth(t, []*pod{pods[0], pods[1]}, 256<<20)

	t.Run("keyboard", func(t *testing.T) {
		b.run(t, chromedp.KeyEvent(kb.Tab))
		if focus := b.text(t, `document.activeElement.className`); focus != "skip" {
			t.Errorf("the first element is %q", focus)
		}
		b.run(t, chromedp.KeyEvent(kb.Enter), chromedp.KeyEvent(kb.Tab))
		if focus := b.text(t, `document.activeElement.ariaLabel`); focus != "Table of peers" {
			t.Errorf("after the skip link comes %q", focus)
		}
	})
	t.Run("screen reader", func(t *testing.T) { b.checkAccessibility(t) })
	for _, scheme := range []string{"light", "dark"} {
		t.Run(scheme, func(t *testing.T) {
			b.look(t, 1280, scheme)
			b.checkAxe(t)
			b.screenshot(t, "status-"+scheme)
			b.look(t, 375, scheme)
			b.checkAxe(t)
			b.screenshot(t, "status-phone-"+scheme)
		})
	}
	b.look(t, 1280, "light")

	nodes[2].Process().Kill()
	waitState(t, nodes[0], "c", api.PeerDead)
	labtest.Until(t, patience, func() error {
		if err := b.sameAsCommand(t, nodes[0]); err != nil {
			return err
		}
		w := b.text(t, `document.querySelector("#warnings").innerText`)
		if !strings.Contains(w, "Node c") || !strings.Contains(w, "weft reclaim") {
			return fmt.Errorf("the warnings on the page are %q", w)
		}
		return nil
	})
	b.screenshot(t, "status-dead")
	b.checkCopy(t)
	if complaints := b.takeComplaints(); len(complaints) > 0 {
		t.Errorf("the browser complains: %q", complaints)
	}

	t.Run("without JavaScript", func(t *testing.T) {
		call(t, b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
		b.load(t, url)
		b.run(t, chromedp.WaitVisible(chromedp.CSS("noscript p")))
		b.run(t, chromedp.WaitNotVisible(chromedp.CSS("button.copy")), chromedp.WaitVisible(chromedp.CSS(".command code")))
		call(t, b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{})
	})
	t.Run("node stopped", func(t *testing.T) {
		b.load(t, url)
		if err := nodes[0].Stop(); err != nil {
			t.Fatal(err)
		}
		b.run(t, chromedp.WaitVisible(chromedp.CSS("#connection")))
		old := regexp.MustCompile(`^Updated \d+ s ago, \d\d:\d\d:\d\d \w+$`)
		labtest.Until(t, patience, func() error {
			if age := b.text(t, `document.querySelector("#freshness").innerText`); !old.MatchString(age) {
				return fmt.Errorf("the page says %q of its age", age)
			}
			return nil
		})
		b.checkAxe(t)
	})
}

// TestStatusPageGuards: the HTTP port rejects requests with another host name, so that pages of other sites cannot read it
// through the browser. It also rejects requests that change something.
func TestStatusPageGuards(t *testing.T) {
	t.Parallel()
	n := newNodes(t, "a")[0]
	start(t, []*cluster.Node{n})
	url := pageOf(t, n)
	request := func(method, path, host string) (code int, header http.Header) {
		req, err := http.NewRequestWithContext(testContext(t), method, url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if host != "" {
			req.Host = host
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode, resp.Header
	}
	for _, c := range []struct {
		method, path, host string
		code               int
	}{
		{http.MethodGet, "/", "", http.StatusOK},
		{http.MethodGet, "/", "attacker.example", http.StatusMisdirectedRequest},
		{http.MethodGet, "/metrics", "attacker.example", http.StatusMisdirectedRequest},
		{http.MethodPost, "/", "", http.StatusMethodNotAllowed},
		{http.MethodGet, "/v1/status", "", http.StatusNotFound},
	} {
		if code, _ := request(c.method, c.path, c.host); code != c.code {
			t.Errorf("%s %s with host %q: %d, want %d", c.method, c.path, c.host, code, c.code)
		}
	}
	_, header := request(http.MethodGet, "/", "")
	if csp := header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") {
		t.Errorf("policy %q", csp)
	}
}

// TestThousandPages: with a thousand open pages, even if they do not read, the node serves a limited number and rejects the
// rest with code 503. Traffic of pods is not affected.
func TestThousandPages(t *testing.T) {
	nodes := newNodes(t, "a", "b")
	startSealed(t, nodes, newSecret(t))
	pods := []*pod{attach(t, nodes[0], "p"), attach(t, nodes[1], "p")}
	pods[0].reaches(t, pods[1].addr)
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	codes := map[string]int{}
	if err := nodes[0].Space.Do(func() error {
		for range 1000 {
			c, err := net.Dial("tcp", "127.0.0.1:6782")
			if err != nil {
				return err
			}
			conns = append(conns, c)
			if _, err := fmt.Fprint(c, "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, c := range conns {
		head := make([]byte, len("HTTP/1.1 200"))
		if _, err := io.ReadFull(c, head); err != nil {
			t.Fatal(err)
		}
		codes[string(head[9:])]++
	}
	if codes["200"] != 256 || codes["503"] != 744 {
		t.Errorf("answers by code: %v, want 256 and 744", codes)
	}
	transferBoth(t, pods, 64<<20)
	if s := query[api.Status](t, nodes[0], "status"); !s.Ready {
		t.Error("the node is no longer ready")
	}
	if drops := query[api.Status](t, nodes[0], "status").Drops; len(drops) > 0 && drops["device"]+drops["send"] > 0 {
		t.Errorf("frames were dropped: %v", drops)
	}
}
