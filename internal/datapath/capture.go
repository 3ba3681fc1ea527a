package datapath

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"weft/internal/api"
	"weft/internal/capture/filter"
	"weft/internal/capture/pcapng"
	"weft/internal/hint"
	"weft/internal/peer"
	"weft/router"
	"weft/router/capture"
	"weft/router/carrier/framewatch"
)

// captureFlush is how long captured frames wait for more before they are sent to the client.
const captureFlush = 200 * time.Millisecond

// Capture copies frames on their way between this node and its peers, for one client.
type Capture struct {
	*capture.Capture
	stop      func()
	d         *Datapath
	kernel    kernelPaths
	filter    string        // as the client wrote it
	remaining int           // frames until the end; negative: no end
	missed    atomic.Uint64 // frames that the kernel did not hand over
}

// StartCapture starts a capture. The caller closes it. Errors that the client can fix are *hint.Error.
func (d *Datapath) StartCapture(in api.CaptureRequest) (*Capture, error) {
	e := d.current.Load()
	if e == nil {
		return nil, errStarting()
	}
	f, err := filter.Parse(in.Filter)
	if err != nil {
		return nil, hint.New(hint.Invalid, "Write it as for tcpdump, such as \"tcp port 80 and host 10.32.0.1\"; \"weft capture "+
			"--help\" lists the words.", "%w", err)
	}
	id := peer.ID{}
	if in.Peer != "" {
		if id, err = d.findPeer(in.Peer); err != nil {
			return nil, err
		}
	}
	c, stop, err := e.router.Capture(id, f.Match, in.Snaplen)
	if errors.Is(err, router.ErrCaptures) {
		return nil, hint.New(hint.Refused, "End another \"weft capture\" first.", "%w", err)
	} else if err != nil {
		return nil, err
	}
	remaining := in.Count
	if remaining == 0 {
		remaining = -1
	}
	return &Capture{Capture: c, stop: stop, d: d, kernel: e.kernel, filter: in.Filter, remaining: remaining}, nil
}

// Close ends the capture.
func (c *Capture) Close() { c.stop() }

// findPeer returns the live peer with the given ID or nickname.
func (d *Datapath) findPeer(name string) (peer.ID, error) {
	var found []Member
	for _, m := range d.cfg.Membership.Members() {
		if m.Name == name || m.ID.String() == strings.ToLower(name) {
			found = append(found, m)
		}
	}
	switch {
	case len(found) == 1:
		return found[0].ID, nil
	case len(found) > 1:
		return peer.ID{}, hint.New(hint.Invalid, "Give the ID; \"weft peers\" shows it.", "%d peers have the name %q", len(found), name)
	}
	return peer.ID{}, hint.New(hint.NotFound, "\"weft peers\" lists the peers.", "no live peer has the name or the ID %q", name)
}

// Stream writes the captured frames to w in pcapng, until ctx ends, w fails, or there are enough frames. Each Write to w should
// reach the client at once.
func (c *Capture) Stream(ctx context.Context, w io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		c.watchKernel(ctx)
	}()
	defer func() {
		cancel()
		<-watched
	}()
	out, err := pcapng.NewWriter(w, "weft "+c.d.settings.Version, strings.TrimSpace("node "+c.d.settings.Name+" "+c.filter))
	if err == nil {
		err = out.Flush()
	}
	tick := time.NewTicker(captureFlush)
	defer tick.Stop()
	for reported := uint64(0); err == nil && c.remaining != 0; {
		select {
		case <-ctx.Done():
			c.remaining = 0
		case <-tick.C:
			if lost := c.lost(); lost != reported {
				reported, err = lost, out.Lost(lost)
			}
			if err == nil {
				err = out.Flush()
			}
		case f := <-c.Frames():
			c.Taken(f)
			c.remaining--
			err = out.Write(f.At, c.direction(f), f.Length, f.Data)
		}
	}
	if err == nil {
		err = out.Lost(c.lost())
	}
	if err == nil {
		err = out.Flush()
	}
	return err
}

// lost counts the frames that matched and were not captured.
func (c *Capture) lost() uint64 { return c.Lost() + c.missed.Load() }

// direction describes which way a frame goes, and by which session.
func (c *Capture) direction(f capture.Frame) pcapng.Path {
	w := pcapng.Path{Sent: f.Sent}
	if !f.Peer.IsZero() {
		if w.Peer = c.d.cfg.Membership.NodeName(f.Peer); w.Peer == "" {
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

// watchKernel adds the frames that the kernel carries until ctx ends.
func (c *Capture) watchKernel(ctx context.Context) {
	err := c.kernel.watch(ctx, func(d carrierFrames) error {
		return d.Watch(ctx, func(f framewatch.Watched) {
			c.missed.Add(f.Lost)
			c.Add(capture.Frame{At: time.Now(), Peer: f.Peer, Sent: f.Sent, Data: f.Frame})
		})
	})
	if err != nil {
		c.d.log.Warn("the capture lacks the frames that the kernel carries", "err", err)
	}
}
