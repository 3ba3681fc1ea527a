// Package statuspage shows a node and its network in a browser. The page works without JavaScript; with it, it updates
// itself by server-sent events (WHATWG HTML, section 9.2).
//
// The server renders the whole page: view.go and a file for each section compute its content, assets/page.html is the template.
// hub.go sends the sections that have changed to the open pages; one of them is the time of the data, which changes once a
// second, so that a page can show its age. The page is read-only and loads nothing from other hosts. While no page is open,
// nothing runs.
package statuspage

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"weft/internal/api"
	"weft/internal/peer"
)

//go:embed assets
var assets embed.FS

// Snapshot is the data that a page shows. The page owns it and everything in it.
type Snapshot struct {
	Status api.Status
	Peers  []api.Peer // of all nodes, in any order
	Ranges []Range
	Leases []api.Lease // of this node
	Names  []api.Name  // of all nodes
	// Missing is what the node waits for while it is not ready, Waiting what it waits for before it can lease addresses;
	// empty: nothing.
	Missing, Waiting string
	// Broken are the pairs of nodes without a direct link.
	Broken [][2]peer.ID
}

// Traffic is a number of bytes in each direction.
type Traffic struct{ Tx, Rx uint64 }

// Range is an address range with its division among nodes.
type Range struct {
	CIDR   netip.Prefix
	Owners []api.IPAMOwner
	Parts  []Part // in the order of their addresses
}

// Part is a contiguous part of a range that one node owns. Start and Length are shares of the range, from 0 to 1.
type Part struct {
	Owner         peer.ID
	Start, Length float64
	Used          float64 // the share of the part that is in use, from 0 to 1
}

// Config configures a Page. All fields are required.
type Config struct {
	Source Source
	Logger *slog.Logger
}

// Source has the data to show.
type Source interface {
	// Snapshot returns the present data. It is called with a lock of the page held, so from one goroutine at a time, at most
	// twice a second, and only while a page is open or loaded. Requests wait for it.
	Snapshot() Snapshot
}

// Page is the status page. Its methods may be called concurrently.
type Page struct {
	// constant
	cfg      Config
	now      func() time.Time
	template *template.Template
	hub      *hub

	mu     sync.Mutex // held over Source.Snapshot
	latest rendered   // guarded by mu
	rates  rates      // guarded by mu
}

// rendered is the page at one moment. It is never modified.
type rendered struct {
	at       time.Time
	sections []section
	whole    []byte
}

// section is a part of the page that is replaced as a whole.
type section struct {
	ID   string `json:"id"`
	HTML string `json:"html"`
}

// sectionIDs are the sections of the page. Each is a template of that name.
var sectionIDs = []string{"head", "time", "warnings", "mesh", "node", "peers", "addresses", "pods"}

// cacheFor is how long a rendered page is used again.
const cacheFor = 500 * time.Millisecond

// New returns an idle Page.
func New(cfg Config) (*Page, error) {
	t, err := template.New("page.html").ParseFS(assets, "assets/page.html")
	if err != nil {
		return nil, fmt.Errorf("statuspage: %w", err)
	}
	p := &Page{cfg: cfg, now: time.Now, template: t}
	p.hub = newHub(func() ([]section, error) {
		r, err := p.render()
		return r.sections, err
	})
	return p, nil
}

// Run sends changes to the open pages until ctx ends. It ends their streams then, and returns nil.
func (p *Page) Run(ctx context.Context) error { return p.hub.run(ctx) }

// Register adds the page to mux: /, the files that it loads, and /events.
func (p *Page) Register(mux *http.ServeMux) {
	mux.Handle("GET /{$}", secured(http.HandlerFunc(p.serve)))
	mux.Handle("GET /events", secured(p.hub))
	for _, name := range []string{"page.css", "page.js"} {
		mux.Handle("GET /"+name, secured(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.ServeFileFS(w, r, assets, "assets/"+name)
		})))
	}
}

// secured adds headers that allow a browser to load the files of the page, and nothing from elsewhere.
func secured(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; "+
			"base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Referrer-Policy", "no-referrer")
		header.Set("Cross-Origin-Resource-Policy", "same-origin")
		header.Set("Cache-Control", "no-store")
		h.ServeHTTP(w, r)
	})
}

func (p *Page) serve(w http.ResponseWriter, _ *http.Request) {
	r, err := p.render()
	if err != nil {
		p.cfg.Logger.Error("status page not rendered", "err", err)
		http.Error(w, "the page could not be rendered: see the log of the daemon", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(r.whole) // fails when the browser has closed the connection
}

// render returns the page, rendered at most cacheFor ago.
func (p *Page) render() (rendered, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	if age := now.Sub(p.latest.at); p.latest.whole != nil && age >= 0 && age < cacheFor {
		return p.latest, nil
	}
	s := p.cfg.Source.Snapshot()
	v := newView(s, p.rates.update(s, now), now)
	r := rendered{at: now}
	for _, id := range sectionIDs {
		var b bytes.Buffer
		if err := p.template.ExecuteTemplate(&b, id, v); err != nil {
			return rendered{}, fmt.Errorf("statuspage: %w", err)
		}
		r.sections = append(r.sections, section{id, b.String()})
	}
	var b bytes.Buffer
	if err := p.template.Execute(&b, v); err != nil {
		return rendered{}, fmt.Errorf("statuspage: %w", err)
	}
	r.whole = b.Bytes()
	p.latest = r
	return r, nil
}
