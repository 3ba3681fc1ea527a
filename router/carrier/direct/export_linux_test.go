package direct

import "context"

// Settle makes the carrier as old as it has to be to drop packets from addresses of no peer.
func (d *Direct) Settle(ctx context.Context) error {
	d.setMu.Lock()
	d.opened = d.opened.Add(-openTime)
	d.setMu.Unlock()
	return d.Ensure(ctx)
}
