package statuspage

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"weft/internal/signal"
)

// eventStream is the media type of a stream of events (WHATWG HTML, section 9.2.5).
const eventStream = "text/event-stream"

// Bounds and times of streams of events.
const (
	maxStreams = 256
	// renderPause is the time between two renderings, while there is a stream.
	renderPause = time.Second
	// keepalivePause is the longest time without a write to a stream, so that both ends notice when the other one is gone.
	keepalivePause = 15 * time.Second
	// retryAfter is the pause in seconds that is recommended to a page for which there is no stream.
	retryAfter = "10"
	// writeTimeout bounds a write to a stream. A slower reader loses its stream.
	writeTimeout = 10 * time.Second
)

// hub sends the sections that have changed to all open pages. Each stream remembers the version that it has sent, so a slow
// one skips intermediate versions, always gets the latest one, and needs no queue.
type hub struct {
	// constant
	render  func() ([]section, error)
	stopped chan struct{} // closed when run has ended
	joined  signal.Chan   // set when a stream has been added

	mu       sync.Mutex
	sections []section            // guarded by mu: the latest
	versions map[string]uint64    // guarded by mu: of each section, by ID
	version  uint64               // guarded by mu: the highest of versions
	streams  map[signal.Chan]bool // guarded by mu: set when a section has changed
}

func newHub(render func() ([]section, error)) *hub {
	return &hub{
		render: render, stopped: make(chan struct{}), joined: signal.New(),
		versions: map[string]uint64{}, streams: map[signal.Chan]bool{},
	}
}

// run renders the page while there are streams, until ctx ends. It ends all streams then.
func (h *hub) run(ctx context.Context) error {
	defer close(h.stopped)
	tick := time.NewTicker(renderPause)
	defer tick.Stop()
	for {
		if h.count() == 0 {
			select {
			case <-ctx.Done():
				return nil
			case <-h.joined.C():
			}
		}
		if sections, err := h.render(); err == nil { // an error is shown and logged when the page is loaded
			h.publish(sections)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// count returns the number of streams.
func (h *hub) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.streams)
}

// publish replaces the sections, and wakes all streams when one has changed.
func (h *hub) publish(sections []section) {
	h.mu.Lock()
	defer h.mu.Unlock()
	before := h.version
	for i, s := range sections {
		if i >= len(h.sections) || h.sections[i] != s {
			h.version++
			h.versions[s.ID] = h.version
		}
	}
	h.sections = sections
	if h.version == before {
		return
	}
	for changed := range h.streams {
		changed.Set()
	}
}

// join adds a stream. changed is set at first, and when a section has changed. ok is false when there are maxStreams, or
// when run has ended.
func (h *hub) join() (changed signal.Chan, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	select {
	case <-h.stopped:
		return signal.Chan{}, false
	default:
	}
	if len(h.streams) >= maxStreams {
		return signal.Chan{}, false
	}
	changed = signal.New()
	changed.Set()
	h.streams[changed] = true
	h.joined.Set()
	return changed, true
}

// leave removes a stream.
func (h *hub) leave(changed signal.Chan) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.streams, changed)
}

// changedSince returns the sections that have changed after a version, and the latest version.
func (h *hub) changedSince(after uint64) (sections []section, latest uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.sections {
		if h.versions[s.ID] > after {
			sections = append(sections, s)
		}
	}
	return sections, h.version
}

// ServeHTTP implements http.Handler: it sends a stream of events, each a section as JSON. The stream lasts longer than the
// timeouts of the server allow for other responses.
func (h *hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodHead { // its response has no body, and the next request on the connection waits for its end
		w.Header().Set("Content-Type", eventStream)
		return
	}
	changed, ok := h.join()
	if !ok {
		w.Header().Set("Retry-After", retryAfter)
		http.Error(w, fmt.Sprintf("%d pages are updated already, or the node is stopping: this page is reloaded now and then",
			maxStreams), http.StatusServiceUnavailable)
		return
	}
	defer h.leave(changed)
	w.Header().Set("Content-Type", eventStream)
	control := http.NewResponseController(w)
	keepalive := time.NewTicker(keepalivePause)
	defer keepalive.Stop()
	for sent := uint64(0); ; {
		var err error
		select {
		case <-r.Context().Done():
			return
		case <-h.stopped:
			return
		case <-changed.C():
			var sections []section
			sections, sent = h.changedSince(sent)
			err = send(w, control, sections)
		case <-keepalive.C:
			err = send(w, control, nil)
		}
		if err != nil {
			return // the reader is gone or too slow
		}
	}
}

// send writes an event for each section, or a comment when there are none.
func send(w http.ResponseWriter, control *http.ResponseController, sections []section) error {
	if err := control.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	if len(sections) == 0 {
		if _, err := fmt.Fprint(w, ": alive\n\n"); err != nil {
			return err
		}
	}
	for _, s := range sections {
		text, err := json.Marshal(s)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "event: section\ndata: %s\n\n", text); err != nil {
			return err
		}
	}
	return control.Flush()
}
