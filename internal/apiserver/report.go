package apiserver

import (
	"bytes"
	"context"
	"runtime/pprof"
	"time"

	"github.com/prometheus/common/expfmt"

	"weft/internal/api"
	"weft/internal/hostnet"
)

// maxGoroutineText bounds the goroutine profile in a report, in bytes.
const maxGoroutineText = 64 << 10

// report returns everything that a bug report needs. It contains names and addresses, without which nothing could be explained,
// but no secrets, no keys and no contents of frames.
func (s *Server) report(ctx context.Context) api.Report {
	docs := s.cfg.Documents
	return api.Report{
		At: time.Now(), Status: docs.Status(), Peers: docs.Peers(), IPAM: docs.IPAM(), FDB: docs.FDB(), Routes: docs.Routes(),
		Leases: s.cfg.Leases.Leases(""), Names: s.cfg.Names.AllNames(),
		Checks: s.cfg.Diagnostics.Checks(ctx), Flags: s.cfg.Diagnostics.Flags(), Log: s.cfg.Diagnostics.Log(),
		Host: hostnet.Facts(), Goroutines: goroutines(), Metrics: s.metricsText(),
	}
}

// goroutines returns the stacks of all goroutines, equal ones once.
func goroutines() string {
	var b bytes.Buffer
	_ = pprof.Lookup("goroutine").WriteTo(&b, 1) // to memory, which cannot fail
	return string(b.Bytes()[:min(b.Len(), maxGoroutineText)])
}

// metricsText returns all metrics in the text format.
func (s *Server) metricsText() string {
	families, err := s.cfg.Metrics.Gather()
	if err != nil {
		return err.Error()
	}
	var b bytes.Buffer
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
			return err.Error()
		}
	}
	return b.String()
}
