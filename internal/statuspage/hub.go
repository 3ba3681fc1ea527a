package statuspage

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// eventStream is the type of a stream of events (WHATWG HTML, section 9.2.5).
const eventStream = "text/event-stream"

// Bounds and times of streams of events.
const (
	maxStreams = 256
	// lookEach is how often it is looked what has changed, while there is a stream.
	lookEach = time.Second
	// aliveEach is how often something is sent at least, so that both ends notice when the other has gone.
	aliveEach = 15 * time.Second
	// writeWithin is how long a reader may take for what it is sent, or its stream ends.
	writeWithin = 10 * time.Second
)

// hub sends the sections that have changed to all who look. Each stream remembers what it has sent, so that one that is slow misses what was
// between, and never the end, and nothing piles up for it.
type hub struct {
	look func() ([]section, error)

	mu       sync.Mutex
	sections []section              // guarded by mu: as they are
	versions map[string]uint64      // guarded by mu: of each, by ID
	version  uint64                 // guarded by mu: the latest of all
	streams  map[chan struct{}]bool // guarded by mu: each holds a token while there may be news
	stopped  bool                   // guarded by mu
	first    chan struct{}          // holds a token when there is a first stream
}

func newHub(look func() ([]section, error)) *hub {
	return &hub{look: look, versions: map[string]uint64{}, streams: map[chan struct{}]bool{}, first: make(chan struct{}, 1)}
}

// run looks for news while there are streams.
func (h *hub) run(ctx context.Context) error {
	defer h.stop()
	tick := time.NewTicker(lookEach)
	defer tick.Stop()
	for {
		if h.count() == 0 {
			select {
			case <-ctx.Done():
				return nil
			case <-h.first:
			}
		}
		if sections, err := h.look(); err == nil { // else whoever loads the page hears of it
			h.publish(sections)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (h *hub) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.streams)
}

// stop ends all streams, and those to come.
func (h *hub) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopped = true
	for wake := range h.streams {
		close(wake)
	}
	clear(h.streams)
}

// publish takes the sections as they are now, and wakes all streams where something is new.
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
	for wake := range h.streams {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
}

// join adds a stream; ok is false where there are too many, or no more to be.
func (h *hub) join() (wake chan struct{}, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopped || len(h.streams) >= maxStreams {
		return nil, false
	}
	wake = make(chan struct{}, 1)
	wake <- struct{}{}
	h.streams[wake] = true
	select {
	case h.first <- struct{}{}:
	default:
	}
	return wake, true
}

func (h *hub) leave(wake chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.streams, wake)
}

// news returns the sections that are later than a version, and the latest version.
func (h *hub) news(after uint64) (sections []section, latest uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.sections {
		if h.versions[s.ID] > after {
			sections = append(sections, s)
		}
	}
	return sections, h.version
}

// ServeHTTP implements http.Handler: a stream of events, each a section as JSON. It goes on for longer than the server gives other answers.
func (h *hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodHead { // nothing would come, and the next request on the connection would wait for its end
		w.Header().Set("Content-Type", eventStream)
		return
	}
	wake, ok := h.join()
	if !ok {
		w.Header().Set("Retry-After", "10")
		http.Error(w, fmt.Sprintf("%d pages are kept up to date already, or the node is stopping: this one asks now and then", maxStreams), http.StatusServiceUnavailable)
		return
	}
	defer h.leave(wake)
	w.Header().Set("Content-Type", eventStream)
	control := http.NewResponseController(w)
	alive := time.NewTicker(aliveEach)
	defer alive.Stop()
	for seen := uint64(0); ; {
		var err error
		select {
		case <-r.Context().Done():
			return
		case _, open := <-wake:
			if !open {
				return
			}
			var sections []section
			sections, seen = h.news(seen)
			err = send(w, control, sections)
		case <-alive.C:
			err = send(w, control, nil)
		}
		if err != nil {
			return // it has gone, or takes too long
		}
	}
}

// send writes events, or a comment where there are none.
func send(w http.ResponseWriter, control *http.ResponseController, sections []section) error {
	if err := control.SetWriteDeadline(time.Now().Add(writeWithin)); err != nil {
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
