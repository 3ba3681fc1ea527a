package datapath

import (
	"context"

	"weft/internal/ether"
)

// inwardNodes are the other nodes, as answers to clients outside of the overlay see them. It implements inward.Nodes.
type inwardNodes struct {
	Gossip
	d *Datapath
}

// Gateways implements inward.Nodes.
func (n inwardNodes) Gateways() (list []ether.Addr) {
	for _, m := range n.d.cfg.Membership.Members() {
		if !m.Gateway.IsZero() {
			list = append(list, m.Gateway)
		}
	}
	return list
}

// ApplyInward puts the present mode for packets from outside the overlay in force. An error means that it is not.
func (d *Datapath) ApplyInward(ctx context.Context) error {
	d.hostMu.Lock()
	defer d.hostMu.Unlock()
	return d.inward.Apply(ctx)
}
