package apiserver

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"weft/internal/api"
	"weft/internal/hint"
)

// top answers with a document for each interval, until the client disconnects, ctx ends, or there are as many as the query asks for.
func (s *Server) top(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	in, err := topRequest(r)
	if err != nil {
		writeProblem(s.log, w, err)
		return
	}
	watch, err := s.cfg.Traffic.WatchTraffic()
	if err != nil {
		writeProblem(s.log, w, err)
		return
	}
	defer watch.Close()
	w.Header().Set("Content-Type", "application/x-ndjson")
	if err := http.NewResponseController(w).Flush(); err != nil {
		return
	}
	out := json.NewEncoder(flushingWriter{w, http.NewResponseController(w)})
	tick := time.NewTicker(in.Interval)
	defer tick.Stop()
	for n := 0; in.Count == 0 || n < in.Count; n++ {
		select {
		case <-ctx.Done():
			return
		case <-r.Context().Done():
			return
		case <-tick.C:
		}
		if err := out.Encode(watch.Next()); err != nil {
			s.log.Debug("a stream of rates ended", "err", err)
			return
		}
	}
}

func topRequest(r *http.Request) (in api.TopRequest, err error) {
	q := r.URL.Query()
	if in.Count, err = parseNumber(q.Get("count"), "count", api.MaxTopCount); err != nil {
		return in, err
	}
	in.Interval, err = time.ParseDuration(q.Get("interval"))
	if err != nil || in.Interval < api.MinTopInterval || in.Interval > api.MaxTopInterval {
		return in, hint.New(hint.Invalid, fmt.Sprintf("Give %s to %s, such as 2s.", api.MinTopInterval, "1h"),
			"--interval: %q is not valid", q.Get("interval"))
	}
	return in, nil
}
