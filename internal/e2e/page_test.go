package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
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

// browser is a headless Chromium with its errors and console messages.
type browser struct {
	ctx context.Context

	mu         sync.Mutex
	complaints []string // guarded by mu
}

func newBrowser(t *testing.T) *browser {
	t.Helper()
	labtest.Needs(t, "chromium")
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath("chromium"), chromedp.NoSandbox,
		chromedp.UserDataDir(t.TempDir()), chromedp.WindowSize(1280, 900))
	ctx, cancel := chromedp.NewExecAllocator(testContext(t), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	b := &browser{ctx: ctx}
	err := chromedp.Listen(ctx, func(event any) {
		switch e := event.(type) {
		case *runtime.EventExceptionThrown:
			b.complain(e.ExceptionDetails.Text)
		case *runtime.EventConsoleAPICalled:
			b.complain(fmt.Sprint("console.", e.Type))
		case *cdplog.EventEntryAdded:
			b.complain(e.Entry.Text + " " + e.Entry.URL)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	call(t, b, cdplog.Enable, cdp.Empty{})
	call(t, b, runtime.Enable, cdp.Empty{})
	return b
}

func (b *browser) complain(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.complaints = append(b.complaints, text)
}

// takeComplaints returns the complaints since the last call.
func (b *browser) takeComplaints() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	complaints := b.complaints
	b.complaints = nil
	return complaints
}

func (b *browser) run(t *testing.T, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		t.Fatal(err)
	}
}

// call calls a command of the browser's protocol.
func call[P, R any](t *testing.T, b *browser, command cdp.Command[P, R], params P) R {
	t.Helper()
	result, err := chromedp.Call(b.ctx, command, params)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// load opens the status page and waits until it shows peers.
func (b *browser) load(t *testing.T, url string) {
	t.Helper()
	b.run(t, chromedp.Navigate(url), chromedp.WaitVisible(chromedp.CSS("tr[data-peer]")))
}

// text returns the value of a JavaScript expression.
func (b *browser) text(t *testing.T, expression string) string {
	t.Helper()
	result, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](expression))
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// screenshot writes a picture of the page into the folder $WEFT_SCREENSHOTS. It does nothing if that is empty.
func (b *browser) screenshot(t *testing.T, name string) {
	t.Helper()
	folder := os.Getenv("WEFT_SCREENSHOTS")
	if folder == "" {
		return
	}
	png, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, name+".png"), png, 0o644); err != nil {
		t.Fatal(err)
	}
}

const shownPeers = `JSON.stringify([...document.querySelectorAll("tr[data-peer]")].map(row => {
	const field = name => row.querySelector("[data-field=" + name + "]").textContent;
	return {id: row.dataset.peer, name: field("name").replace(" (this node)", ""),
		addr: field("addr"), state: field("state"), link: field("link").replace("–", "none"),
		datapath: field("datapath").replace("–", ""), cipher: field("cipher").replace("–", ""), mtu: Number(field("mtu"))};
}))`

// sameAsCommand returns an error if the page differs from the output of "weft peers --json".
func (b *browser) sameAsCommand(t *testing.T, n *cluster.Node) error {
	t.Helper()
	var want []string
	for _, p := range query[[]api.Peer](t, n, "peers") {
		want = append(want, fmt.Sprintf(`{"id":"%s","name":"%s","addr":"%s","state":"%s","link":"%s","datapath":"%s","cipher":"%s","mtu":%d}`,
			p.ID, p.Name, p.Addr, p.State, p.Link, p.Datapath, p.Cipher, p.MTU))
	}
	if got := b.text(t, shownPeers); got != "["+strings.Join(want, ",")+"]" {
		return fmt.Errorf("the page shows\n%s, weft peers\n[%s]", got, strings.Join(want, ","))
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
	b.load(t, url)
	labtest.Until(t, patience, func() error { return b.sameAsCommand(t, nodes[0]) })
	const drawn = `String(document.querySelectorAll(".node circle").length + " " + document.querySelectorAll(".arc .whole").length)`
	if n := b.text(t, drawn); n != "3 3" {
		t.Errorf("%s nodes and arcs are drawn, want 3 of each", n)
	}
	if w := b.text(t, `document.querySelector("#warnings").innerText`); !strings.Contains(w, "None.") {
		t.Errorf("the warnings of a network without problems: %s", w)
	}
	transferBoth(t, []*pod{pods[0], pods[1]}, 256<<20)
	b.screenshot(t, "status-light")

	t.Run("keyboard", func(t *testing.T) {
		b.run(t, chromedp.KeyEvent(kb.Tab))
		if focus := b.text(t, `document.activeElement.className`); focus != "skip" {
			t.Errorf("the first element is %q", focus)
		}
		b.run(t, chromedp.KeyEvent(kb.Enter), chromedp.KeyEvent(kb.Tab))
		if focus := b.text(t, `document.activeElement.dataset.keep`); focus != "peers" {
			t.Errorf("after the skip link comes %q", focus)
		}
	})
	t.Run("screen reader", func(t *testing.T) { b.checkAccessibility(t) })
	t.Run("phone", func(t *testing.T) {
		call(t, b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
			Width: 375, Height: 812, DeviceScaleFactor: 2, Mobile: true,
		})
		if wide := b.text(t, `String(document.documentElement.scrollWidth)`); wide != "375" {
			t.Errorf("the page is %s wide on a screen of 375", wide)
		}
		b.screenshot(t, "status-phone")
		call(t, b, emulation.ClearDeviceMetricsOverride, cdp.Empty{})
	})
	t.Run("dark", func(t *testing.T) {
		call(t, b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}},
		})
		if back := b.text(t, `getComputedStyle(document.body).backgroundColor`); back != "rgb(20, 25, 27)" {
			t.Errorf("the background in dark mode is %s", back)
		}
		b.screenshot(t, "status-dark")
		call(t, b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{})
	})

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
	if complaints := b.takeComplaints(); len(complaints) > 0 {
		t.Errorf("the browser complains: %q", complaints)
	}

	t.Run("without JavaScript", func(t *testing.T) {
		call(t, b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
		b.load(t, url)
		b.run(t, chromedp.WaitVisible(chromedp.CSS("noscript p")))
		call(t, b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{})
	})
	t.Run("node stopped", func(t *testing.T) {
		b.load(t, url)
		if err := nodes[0].Stop(); err != nil {
			t.Fatal(err)
		}
		b.run(t, chromedp.WaitVisible(chromedp.CSS("#connection")))
	})
}

// checkAccessibility checks the texts for a screen reader: the names of tables, pictures and regions, and that no element
// of these kinds and no link is without a name.
func (b *browser) checkAccessibility(t *testing.T) {
	t.Helper()
	found := map[string][]string{}
	for _, n := range call(t, b, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{}).Nodes {
		if n.Ignored || n.Role == nil {
			continue
		}
		role, name := strings.Trim(string(n.Role.Value), `"`), ""
		if n.Name != nil {
			name = strings.Trim(string(n.Name.Value), `"`)
		}
		found[role] = append(found[role], name)
	}
	for role, names := range map[string][]string{
		"image": {"Mesh", "10.32.0.0/12"}, "table": {"All nodes", "10.32.0.0/12"}, "main": {""},
		"region": {"Warnings", "Peers", "Addresses"},
	} {
		for _, want := range names {
			if !strings.Contains(strings.Join(found[role], "\n"), want) {
				t.Errorf("no %s is named %q: %q", role, want, found[role])
			}
		}
	}
	for _, role := range []string{"image", "table", "link", "region"} {
		for _, name := range found[role] {
			if name == "" {
				t.Errorf("a %s has no name", role)
			}
		}
	}
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
