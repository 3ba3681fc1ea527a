package apiserver

import (
	"context"
	"fmt"
	"net/http"
	"strconv"

	"weft/internal/api"
	"weft/internal/hint"
)

// maxSnaplen is the longest frame in bytes: 64 KiB of a superframe, its Ethernet header and a VLAN tag.
const maxSnaplen = 65535 + 18

// maxCaptureCount is the largest number of frames that a capture can be limited to.
const maxCaptureCount = 1 << 31

// capture answers with frames in pcapng, until the client disconnects, ctx ends, or there are as many as the query asks for.
func (s *Server) capture(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	in, err := captureRequest(r)
	if err != nil {
		writeProblem(s.log, w, err)
		return
	}
	c, err := s.cfg.Captures.StartCapture(in)
	if err != nil {
		writeProblem(s.log, w, err)
		return
	}
	defer c.Close()
	stream, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	w.Header().Set("Content-Type", "application/x-pcapng")
	if err := c.Stream(stream, flushingWriter{w, http.NewResponseController(w)}); err != nil {
		s.log.Debug("capture ended", "err", err)
	}
}

func captureRequest(r *http.Request) (in api.CaptureRequest, err error) {
	q := r.URL.Query()
	in.Peer, in.Filter = q.Get("peer"), q.Get("filter")
	if in.Count, err = parseNumber(q.Get("count"), "count", maxCaptureCount); err != nil {
		return in, err
	}
	in.Snaplen, err = parseNumber(q.Get("snaplen"), "snaplen", maxSnaplen)
	return in, err
}

func parseNumber(text, flag string, most int) (int, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > most {
		return 0, hint.New(hint.Invalid, fmt.Sprintf("Give 0 to %d.", most), "--%s: %q is not valid", flag, text)
	}
	return n, nil
}

// flushingWriter sends each Write to the client at once.
type flushingWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

// Write implements io.Writer.
func (f flushingWriter) Write(b []byte) (int, error) {
	n, err := f.w.Write(b)
	if err == nil {
		err = f.control.Flush()
	}
	return n, err
}
