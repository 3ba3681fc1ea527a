package e2e

import (
	"fmt"
	"strings"
	"testing"

	permission "github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"weft/internal/nettest/labtest"
)

// TestPageLook: in each state, at both widths, light and dark, axe-core finds nothing, and the page is no wider than the screen.
// On a laptop no table is cut, and peers are in sight without scrolling.
func TestPageLook(t *testing.T) {
	b := newBrowser(t)
	for _, s := range []struct {
		name  string
		state *pageState
	}{
		{"healthy", newPageState(3)}, {"troubled", newTroubledState()}, {"star", newPageState(18)}, {"large", newLargeState()},
	} {
		url := servePage(t, s.state)
		for _, width := range []int64{1280, 375} {
			for _, scheme := range []string{"light", "dark"} {
				name := fmt.Sprintf("%s-%d-%s", s.name, width, scheme)
				t.Run(name, func(t *testing.T) {
					b.look(t, width, scheme)
					b.load(t, url)
					b.run(t, chromedp.WaitReady(chromedp.CSS("html.js")))
					b.checkWidths(t, width)
					b.checkAxe(t)
					b.screenshot(t, "look-"+name)
				})
			}
		}
	}
	if complaints := b.takeComplaints(); len(complaints) > 0 {
		t.Errorf("the browser complains: %q", complaints)
	}
}

// TestPageKeepsPlace: an update changes what differs and nothing else: a selection and an unfolded list stay.
func TestPageKeepsPlace(t *testing.T) {
	b := newBrowser(t)
	b.look(t, 1280, "light")
	b.load(t, servePage(t, newTroubledState()))
	b.run(t, chromedp.WaitReady(chromedp.CSS("html.js")), chromedp.Click(chromedp.CSS("#peers summary")))
	const place = `JSON.stringify([String(getSelection()), document.querySelector("#peers details").open])`
	before := b.text(t, `getSelection().selectAllChildren(document.querySelector("tr[data-peer] code")); `+place)
	if want := fmt.Sprintf("[%q,true]", stateID(5)); before != want {
		t.Fatalf("at first %s, want %s", before, want)
	}
	const traffic = `[...document.querySelectorAll("td.traffic")].map(e => e.textContent).join()`
	for range 2 {
		shown := b.text(t, traffic)
		labtest.Until(t, patience, func() error {
			if now := b.text(t, traffic); now == shown {
				return fmt.Errorf("the traffic is still %q", now)
			}
			return nil
		})
	}
	if after := b.text(t, place); after != before {
		t.Errorf("after two updates %s, want %s", after, before)
	}
}

// checkWidths checks what fits the screen.
func (b *browser) checkWidths(t *testing.T, width int64) {
	t.Helper()
	if got := b.text(t, `String(document.documentElement.scrollWidth)`); got != fmt.Sprint(width) {
		t.Errorf("the page is %s wide on a screen of %d", got, width)
	}
	if width < 1000 {
		return
	}
	const cut = `[...document.querySelectorAll(".scroll")].filter(e => e.scrollWidth > e.clientWidth)
		.map(e => e.ariaLabel + ": " + e.scrollWidth + " of " + e.clientWidth).join()`
	if got := b.text(t, cut); got != "" {
		t.Errorf("tables that do not fit: %s", got)
	}
	const bottom = `document.querySelector("tr[data-peer]").getBoundingClientRect().bottom`
	if got := b.text(t, bottom+` > innerHeight ? String(`+bottom+`) : ""`); got != "" {
		t.Errorf("the first peer ends at %s, below the edge of the screen", got)
	}
}

// checkCopy checks that the button beside a command copies it: onto the clipboard, and where a page has no access to that, as a
// selection.
func (b *browser) checkCopy(t *testing.T) {
	t.Helper()
	for _, name := range []string{"clipboard-read", "clipboard-write"} {
		call(t, b, permission.SetPermission, permission.SetPermissionParams{
			Permission: &permission.PermissionDescriptor{Name: name}, Setting: permission.PermissionSettingGranted,
		})
	}
	command := b.text(t, `document.querySelector(".command code").textContent`)
	b.run(t, chromedp.Click(chromedp.CSS("button.copy")))
	labtest.Until(t, patience, func() error {
		if label := b.text(t, `document.querySelector("button.copy span").textContent`); label != "Copied" {
			return fmt.Errorf("the button reads %q", label)
		}
		return nil
	})
	yes := true
	result := call(t, b, runtime.Evaluate, runtime.EvaluateParams{Expression: `navigator.clipboard.readText()`, AwaitPromise: &yes})
	if got := strings.Trim(string(result.Result.Value), `"`); got != command {
		t.Errorf("%q is on the clipboard, want %q: %+v", got, command, result.ExceptionDetails)
	}
	b.text(t, `Object.defineProperty(navigator, "clipboard", {value: undefined});
		document.addEventListener("copy", () => { document.body.dataset.copied = String(getSelection()) }); ""`)
	b.run(t, chromedp.Click(chromedp.CSS("button.copy")))
	labtest.Until(t, patience, func() error {
		if got := b.text(t, `document.body.dataset.copied || ""`); got != command {
			return fmt.Errorf("%q was copied without access to the clipboard, want %q", got, command)
		}
		return nil
	})
}
