package datapath

import (
	"context"
	"errors"
	"time"

	"weft/internal/hint"
	"weft/router"
	"weft/router/carrier/framewatch"
	"weft/router/flows"
)

// FlowWatch samples the frames between this node and its peers, in userspace and on the kernel path, until Close.
type FlowWatch struct {
	sampler *flows.Sampler
	end     func() // stops the sampling and waits until it has ended
}

// WatchFlows starts a FlowWatch. Errors that the client can fix are *hint.Error.
func (d *Datapath) WatchFlows() (*FlowWatch, error) {
	e := d.current.Load()
	if e == nil {
		return nil, errStarting()
	}
	w := &FlowWatch{sampler: flows.NewSampler()}
	stop, err := e.router.SampleFlows(w.sampler)
	if errors.Is(err, router.ErrSamplers) {
		return nil, hint.New(hint.Refused, "End another \"weft top\" first.", "%w", err)
	} else if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := w.sampleKernel(ctx, e.kernel); err != nil {
			d.log.Warn("flows lack the frames that the kernel carries", "err", err)
		}
	}()
	w.end = func() {
		stop()
		cancel()
		<-ended
	}
	return w, nil
}

// sampleKernel counts frames that the kernel carries until ctx ends.
func (w *FlowWatch) sampleKernel(ctx context.Context, kernel kernelPaths) error {
	return kernel.watch(ctx, func(d carrierFrames) error {
		return d.SampleFrames(ctx, func() int { return w.sampler.Every(flows.Kernel) }, func(f framewatch.Sampled) {
			key := flows.Key{Peer: f.Peer, Path: flows.Kernel, Sent: f.Sent}
			w.sampler.Add(key, f.Frame, f.Length, f.Segment, f.Weight, time.Now())
		})
	})
}

// Take returns the sample since the last Take, elapsed ago.
func (w *FlowWatch) Take(elapsed time.Duration) flows.Sample { return w.sampler.Take(elapsed) }

// Close ends the sampling. It is called once.
func (w *FlowWatch) Close() { w.end() }
