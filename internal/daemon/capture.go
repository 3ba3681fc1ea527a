package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"weft/internal/api"
	"weft/internal/capture/filter"
	"weft/internal/capture/pcapng"
	"weft/internal/peer"
	"weft/mesh"
	"weft/router"
	"weft/router/vxlan"
	"weft/tap"
)

// captureFlush is how long what was captured waits at most for more to be sent along.
const captureFlush = 200 * time.Millisecond

// handleCapture answers with frames as they pass, in pcapng, until the client has enough of them.
func (d *Daemon) handleCapture(w http.ResponseWriter, r *http.Request) {
	c, err := d.newCapture(r)
	if err != nil {
		writeProblem(d.log, w, err)
		return
	}
	defer c.Close()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(d.running, cancel)()
	kernel := make(chan struct{})
	go func() {
		defer close(kernel)
		c.watchKernel(ctx)
	}()
	w.Header().Set("Content-Type", "application/x-pcapng")
	err = c.stream(ctx, w)
	cancel()
	<-kernel
	if err != nil {
		d.log.Debug("capture ended", "err", err)
	}
}

// capture is one client's.
type capture struct {
	*router.Capture
	d      *Daemon
	what   string        // the filter, in words
	left   int           // frames until the end; negative: no end
	missed atomic.Uint64 // frames that the kernel did not hand over
}

func (d *Daemon) newCapture(r *http.Request) (*capture, error) {
	p := d.plane.Load()
	if p == nil {
		return nil, errStarting()
	}
	q := r.URL.Query()
	count, err := numberOf(q.Get("count"), "count", 1<<31)
	if err != nil {
		return nil, err
	}
	most, err := numberOf(q.Get("snaplen"), "snaplen", tap.MaxFrame)
	if err != nil {
		return nil, err
	}
	f, err := filter.Parse(q.Get("filter"))
	if err != nil {
		return nil, problem(api.KindInvalid, "Write it as for tcpdump, such as \"tcp port 80 and host 10.32.0.1\"; \"weft capture --help\" has the words.", "%v", err)
	}
	id := peer.ID{}
	if name := q.Get("peer"); name != "" {
		if id, err = d.livePeer(name); err != nil {
			return nil, err
		}
	}
	c, err := p.router.Capture(id, f.Match, most)
	if errors.Is(err, router.ErrCaptures) {
		return nil, problem(api.KindRefused, "End another \"weft capture\" first.", "%v", err)
	} else if err != nil {
		return nil, err
	}
	if count == 0 {
		count = -1
	}
	return &capture{Capture: c, d: d, what: q.Get("filter"), left: count}, nil
}

func numberOf(text, name string, most int) (int, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > most {
		return 0, problem(api.KindInvalid, fmt.Sprintf("Give 0 to %d.", most), "--%s: %q is no such number", name, text)
	}
	return n, nil
}

// livePeer returns the peer with the given ID or nickname.
func (d *Daemon) livePeer(name string) (peer.ID, error) {
	var found []mesh.Member
	for _, m := range d.mesh.Members() {
		if isLivePeer(m) && (m.Name == name || m.ID.String() == strings.ToLower(name)) {
			found = append(found, m)
		}
	}
	switch {
	case len(found) == 1:
		return found[0].ID, nil
	case len(found) > 1:
		return peer.ID{}, problem(api.KindInvalid, "Give the ID; \"weft peers\" shows it.", "%d peers are called %q", len(found), name)
	}
	return peer.ID{}, problem(api.KindNotFound, "See who there is with \"weft peers\".", "no peer alive is called %q or has that ID", name)
}

// stream writes what is captured until ctx ends, the client goes, or there are enough frames.
func (c *capture) stream(ctx context.Context, w http.ResponseWriter) error {
	out := flushed{w, http.NewResponseController(w)}
	writer, err := pcapng.NewWriter(out, "weft "+c.d.cfg.Version, strings.TrimSpace("node "+c.d.cfg.Name+" "+c.what))
	if err == nil {
		err = writer.Flush()
	}
	tick := time.NewTicker(captureFlush)
	defer tick.Stop()
	for told := uint64(0); err == nil && c.left != 0; {
		select {
		case <-ctx.Done():
			c.left = 0
		case <-tick.C:
			if lost := c.Lost() + c.missed.Load(); lost != told {
				told, err = lost, writer.Lost(lost)
				continue
			}
			err = writer.Flush()
		case f := <-c.Frames():
			c.Taken(f)
			c.left--
			err = writer.Write(f.At, c.wayOf(f), f.Length, f.Frame)
		}
	}
	if err == nil {
		err = writer.Lost(c.Lost() + c.missed.Load())
	}
	return err
}

// wayOf says in words how a frame goes.
func (c *capture) wayOf(f router.Captured) pcapng.Path {
	w := pcapng.Path{Sent: f.Sent}
	if !f.Peer.IsZero() {
		if w.Peer = c.d.nameOf(f.Peer); w.Peer == "" {
			w.Peer = f.Peer.String()
		}
	}
	switch {
	case f.Session != 0 && f.Peer.IsZero():
		w.Session = fmt.Sprintf("session %08x", f.Session)
	case f.Session != 0:
		w.Session = fmt.Sprintf("session %08x with %s", f.Session, f.Peer)
	case w.Peer != "":
		w.Session = fmt.Sprintf("carried by the kernel, %s", f.Peer)
	}
	return w
}

// watchKernel adds the frames that the kernel carries.
func (c *capture) watchKernel(ctx context.Context) {
	err := c.d.plane.Load().kernel.watch(ctx, func(f vxlan.Watched) {
		c.missed.Add(f.Lost)
		c.Add(router.Captured{At: time.Now(), Peer: f.Peer, Sent: f.Sent, Frame: f.Frame})
	})
	if err != nil {
		c.d.log.Warn("frames that the kernel carries are not captured", "err", err)
	}
}

// flushed sends each piece to the client at once.
type flushed struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

// Write implements io.Writer.
func (f flushed) Write(b []byte) (int, error) {
	n, err := f.w.Write(b)
	if err == nil {
		err = f.control.Flush()
	}
	return n, err
}
