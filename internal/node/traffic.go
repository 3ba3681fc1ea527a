package node

import (
	"time"

	"weft/internal/api"
	"weft/internal/apiserver"
	"weft/internal/datapath"
	"weft/internal/traffic"
)

// trafficWatches implements apiserver.Traffic.
type trafficWatches struct{ documents documents }

// WatchTraffic implements apiserver.Traffic.
func (t trafficWatches) WatchTraffic() (apiserver.TrafficWatch, error) {
	flows, err := t.documents.n.datapath.WatchFlows()
	if err != nil {
		return nil, err // a nil *trafficWatch is not a nil apiserver.TrafficWatch
	}
	return &trafficWatch{flows, t.documents, t.read()}, nil
}

// read returns what the counters show now.
func (t trafficWatches) read() traffic.Reading {
	stats, _ := t.documents.n.datapath.Stats()
	return traffic.Reading{At: time.Now(), Peers: t.documents.Peers(), Drops: dropDocs(stats.Drops)}
}

// trafficWatch implements apiserver.TrafficWatch. It is for one goroutine.
type trafficWatch struct {
	*datapath.FlowWatch
	documents documents
	last      traffic.Reading
}

// Next implements apiserver.TrafficWatch.
func (w *trafficWatch) Next() api.Top {
	before := w.last
	w.last = trafficWatches{w.documents}.read()
	return traffic.Between(before, w.last, w.Take(w.last.At.Sub(before.At)))
}
