package e2e

import (
	"bytes"
	"compress/gzip"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
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

	"weft/internal/nettest/labtest"
)

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

// look sets the size of the screen and the color scheme. A screen narrower than 1000 pixels is that of a phone.
func (b *browser) look(t *testing.T, width int64, scheme string) {
	t.Helper()
	screen := emulation.SetDeviceMetricsOverrideParams{Width: width, Height: 800, DeviceScaleFactor: 1}
	if width < 1000 {
		screen.DeviceScaleFactor, screen.Mobile = 2, true
	}
	call(t, b, emulation.SetDeviceMetricsOverride, screen)
	call(t, b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
}

// axeArchive is axe-core, a checker of accessibility, compressed.
//
//go:embed testdata/axe/axe.min.js.gz
var axeArchive []byte

// runAxe runs all rules on the page, and returns a line for each element that breaks one. Text with an unknown contrast breaks one,
// too, unless it is an arrow or in a picture, of which axe-core computes no contrast. It computes none above a gradient either, so
// the shadows behind tables are taken away.
const runAxe = `(async () => {
	for (const e of document.querySelectorAll(".scroll")) e.style.background = "none";
	const {violations, incomplete} = await axe.run(document, {resultTypes: ["violations", "incomplete"]});
	for (const e of document.querySelectorAll(".scroll")) e.style.background = "";
	const unknown = n => !n.html.startsWith("<text") && n.any.some(check => check.data?.messageKey !== "nonBmp");
	const contrast = incomplete.filter(rule => rule.id === "color-contrast").map(rule => ({...rule, nodes: rule.nodes.filter(unknown)}));
	return JSON.stringify(violations.concat(contrast).flatMap(rule =>
		rule.nodes.map(n => rule.id + ": " + n.html.slice(0, 120) + ": " + n.failureSummary)));
})()`

// checkAxe reports what axe-core finds on the page.
func (b *browser) checkAxe(t *testing.T) {
	t.Helper()
	archive, err := gzip.NewReader(bytes.NewReader(axeArchive))
	if err != nil {
		t.Fatal(err)
	}
	script, err := io.ReadAll(archive)
	if err != nil {
		t.Fatal(err)
	}
	b.text(t, string(script)+"; String(typeof axe)")
	yes := true
	result := call(t, b, runtime.Evaluate, runtime.EvaluateParams{Expression: runAxe, AwaitPromise: &yes, ReturnByValue: &yes})
	if result.ExceptionDetails != nil {
		t.Fatal(result.ExceptionDetails.Exception.Description)
	}
	var text string
	var found []string
	if err := json.Unmarshal(result.Result.Value, &text); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(text), &found); err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		t.Error(f)
	}
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
		"image": {"Mesh", "10.32.0.0/12"}, "table": {"All nodes", "10.32.0.0/12", "Addresses in use"}, "main": {""},
		"region": {"No warnings", "Mesh", "This node", "Peers", "Addresses", "Pods and names"},
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
