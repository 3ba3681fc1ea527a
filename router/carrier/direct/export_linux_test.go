package direct

import "context"

// Settle makes the carrier and the share of its node as old as they have to be to drop packets from addresses of no peer, and to route
// packets from all of the share.
func (d *Direct) Settle(ctx context.Context) error {
	d.setMu.Lock()
	d.opened = d.opened.Add(-openTime)
	for i := range d.shares {
		d.shares[i].at = d.shares[i].at.Add(-settleTime)
	}
	d.setMu.Unlock()
	return d.Ensure(ctx)
}
