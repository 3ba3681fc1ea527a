// Package statuspage shows a node and its network in a browser: a page that works without JavaScript, and keeps itself up to date with it by
// server-sent events (WHATWG HTML, section 9.2).
//
// The page is made here, whole (view.go, mesh.go and ring.go are what is on it, assets/page.html how); what has changed of it is sent section by section
// to those who look (hub.go). Nothing on it changes anything, nothing is loaded from elsewhere, and while nobody looks nothing runs.
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

// Snapshot is what there is to show. It is the page's to keep.
type Snapshot struct {
	Status api.Status
	Peers  []api.Peer // as "weft peers" has them
	Ranges []Range
	// Kernel counts what the kernel carries by itself, of all peers together; nil where it carries nothing.
	Kernel *Traffic
	// Broken are pairs of nodes that do not reach each other themselves.
	Broken [][2]peer.ID
}

// Traffic counts bytes.
type Traffic struct{ Tx, Rx uint64 }

// Range is an address range and how it is divided.
type Range struct {
	CIDR   netip.Prefix
	Owners []api.IPAMOwner
	Parts  []Part // in order
}

// Part is a piece of a range that one node owns; Start and Length are shares of the range.
type Part struct {
	Owner         peer.ID
	Start, Length float64
	Used          float64 // the share of the part that is in use
}

// Config is what a Page is made of.
type Config struct {
	// Source returns what there is to show. It is called by one goroutine at a time, at most twice a second, and only while somebody looks.
	Source func() Snapshot
	Logger *slog.Logger
	Now    func() time.Time // time.Now where nil
}

// Page is the status page. Its methods may be called concurrently.
type Page struct {
	cfg      Config
	template *template.Template
	hub      *hub

	mu     sync.Mutex
	latest rendered // guarded by mu
	rates  rates    // guarded by mu
}

// rendered is the page as it was at a time.
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

// sectionIDs are the sections of the page, each a template of that name.
var sectionIDs = []string{"head", "warnings", "summary", "mesh", "peers", "addresses"}

// fresh is how long the page is shown again to whoever asks before it is made anew.
const fresh = 500 * time.Millisecond

// New returns a page.
func New(cfg Config) (*Page, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	t, err := template.New("page.html").ParseFS(assets, "assets/page.html")
	if err != nil {
		return nil, fmt.Errorf("statuspage: %w", err)
	}
	p := &Page{cfg: cfg, template: t}
	p.hub = newHub(func() ([]section, error) {
		r, err := p.render()
		return r.sections, err
	})
	return p, nil
}

// Run sends news to those who look until ctx ends, and then ends their streams.
func (p *Page) Run(ctx context.Context) error { return p.hub.run(ctx) }

// Register adds the page to mux: /, what it loads, and /events.
func (p *Page) Register(mux *http.ServeMux) {
	mux.Handle("GET /{$}", secured(http.HandlerFunc(p.serve)))
	mux.Handle("GET /events", secured(p.hub))
	for _, name := range []string{"page.css", "page.js"} {
		mux.Handle("GET /"+name, secured(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.ServeFileFS(w, r, assets, "assets/"+name)
		})))
	}
}

// secured says to browsers what the page may do: load what is its own, and nothing else.
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
		p.cfg.Logger.Error("making the status page", "err", err)
		http.Error(w, "the page could not be made: see the daemon's log", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(r.whole) // whoever went away does not need it
}

// render returns the page, made anew where it is not fresh.
func (p *Page) render() (rendered, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.cfg.Now()
	if age := now.Sub(p.latest.at); p.latest.whole != nil && age >= 0 && age < fresh {
		return p.latest, nil
	}
	s := p.cfg.Source()
	v := newView(s, p.rates.of(s, now), p.rates.kernel, now)
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
