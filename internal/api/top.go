package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"syscall"
	"time"

	"weft/internal/hint"
	"weft/internal/peer"
)

// Bounds of TopRequest.
const (
	MinTopInterval = 100 * time.Millisecond
	MaxTopInterval = time.Hour
	MaxTopCount    = 1 << 31
)

// MaxTopFlows is the largest number of flows in a Top.
const MaxTopFlows = 100

// TopRequest is the query of GET /v1/top. The answer is a stream of Top documents, one a line.
type TopRequest struct {
	Interval time.Duration // between two documents, which are about the time between them
	Count    int           // documents until the end; 0: none
}

// Top is what passed between this node and its peers in an interval.
type Top struct {
	At       time.Time `json:"at"`         // the end of the interval
	Interval float64   `json:"interval_s"` // its length
	ID       peer.ID   `json:"id"`
	Name     string    `json:"name"`
	// Peers has the other nodes that have not left, by name.
	Peers []TopPeer `json:"peers"`
	// Flows has the largest flows, the largest first. They are estimates from a sample of the frames.
	Flows []TopFlow `json:"flows"`
	// Drops are frames and datagrams per second that were dropped, by reason, with and without a peer.
	Drops map[string]float64 `json:"drops_per_s"`
}

// TopPeer is the traffic with a peer in an interval. Bits are those of frames of pods, from the destination address on.
type TopPeer struct {
	ID      peer.ID   `json:"id"`
	Name    string    `json:"name"`
	State   PeerState `json:"state"`
	Link    Link      `json:"link"`
	Via     peer.ID   `json:"via"`
	Carrier Carrier   `json:"carrier"` // empty for a peer that is not alive
	RTT     float64   `json:"rtt_ms"`  // 0: not measured
	TopRates
	// Estimated says that the kernel carried a part of the frames: their number is an estimate from a sample.
	Estimated bool               `json:"estimated"`
	Drops     map[string]float64 `json:"drops_per_s"` // by reason
}

// TopRates are the rates of sent (tx) and received (rx) frames.
type TopRates struct {
	TxBits    float64 `json:"tx_bits_per_s"`
	RxBits    float64 `json:"rx_bits_per_s"`
	TxPackets float64 `json:"tx_packets_per_s"`
	RxPackets float64 `json:"rx_packets_per_s"`
}

// TopFlow is the traffic of a flow in an interval, in one direction, as far as a sample of the frames shows it.
type TopFlow struct {
	Source          netip.Addr `json:"source,omitzero"` // no address: the frames are not IP
	Destination     netip.Addr `json:"destination,omitzero"`
	Protocol        string     `json:"protocol"`    // such as "tcp" or "arp"; the number where it has no name here
	SourcePort      uint16     `json:"source_port"` // 0: the protocol has no ports
	DestinationPort uint16     `json:"destination_port"`
	Peer            peer.ID    `json:"peer"` // zero: unknown, or all
	PeerName        string     `json:"peer_name"`
	Sent            bool       `json:"sent"` // to the peer; otherwise it came from there
	Path            Datapath   `json:"path"`
	Bits            float64    `json:"bits_per_s"`
	Packets         float64    `json:"packets_per_s"`
}

// ErrTopEnded means that the daemon ended a stream of Top documents, because it stops.
var ErrTopEnded = errors.New("the daemon has stopped")

// Top calls f with each document of a stream, until f returns an error, the stream is complete or ctx ends. It returns the error of f.
// If the daemon ends the stream, the error wraps ErrTopEnded.
func (c *Client) Top(ctx context.Context, r TopRequest, f func(Top) error) error {
	q := url.Values{"interval": {r.Interval.String()}, "count": {strconv.Itoa(r.Count)}}
	resp, err := c.send(ctx, http.MethodGet, "top", q, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	documents := json.NewDecoder(resp.Body)
	for n := 0; r.Count == 0 || n < r.Count; n++ {
		var t Top
		err := documents.Decode(&t)
		switch {
		case err == nil:
			err = f(t)
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
			err = hint.New(hint.NoDaemon, "Start it again with \"weft up\", or see its log.", "%w", ErrTopEnded)
		default:
			err = fmt.Errorf("api: decode the daemon's answer: %w", err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
