package kubernetes

import (
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"time"

	"weft/internal/api"
	"weft/internal/peer"
)

// daemon answers the requests of weft-kube in place of the node's daemon, with the peers of the cluster.
type daemon struct {
	http.Server
	since time.Time
	peers []api.Peer
}

// startDaemon serves a daemon's API on a socket until it is closed.
func startDaemon(socket string, c *cluster) (*daemon, error) {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	d := &daemon{since: time.Now()}
	for i := range c.nodes {
		id := peer.ID{6: byte((i + 1) >> 8), 7: byte(i + 1)}
		d.peers = append(d.peers, api.Peer{ID: id, Name: nodeName(i), State: api.PeerAlive, Self: i == 0})
	}
	mux := http.NewServeMux()
	answer := func(f func() any) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(f()) }
	}
	mux.HandleFunc("GET /v1/status", answer(func() any {
		return api.Status{
			ID: d.peers[0].ID, Ready: true, Since: d.since, Advertise: netip.MustParseAddrPort("10.0.0.0:6784"), Bridge: "weave",
		}
	}))
	mux.HandleFunc("GET /v1/peers", answer(func() any { return d.peers }))
	mux.HandleFunc("GET /v1/ipam", answer(func() any { return api.IPAM{} }))
	mux.HandleFunc("/", answer(func() any { return struct{}{} }))
	d.Handler = mux
	go func() {
		if err := d.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			panic(err)
		}
	}()
	return d, nil
}
