package daemon

import (
	"weft/internal/statuspage"
)

// pageParts is how many parts of a range the picture of it has at most.
const pageParts = 720

// pageSource is the daemon as the status page sees it.
type pageSource struct{ d *Daemon }

// Snapshot implements statuspage.Source.
func (s pageSource) Snapshot() statuspage.Snapshot { return s.d.snapshot() }

// snapshot returns what the status page shows.
func (d *Daemon) snapshot() statuspage.Snapshot {
	s := statuspage.Snapshot{Status: d.status(), Peers: d.peers(), Broken: d.mesh.Broken()}
	if k, ok := d.kernelSample(); ok {
		s.Kernel = &statuspage.Traffic{Tx: k.TxBytes, Rx: k.RxBytes}
	}
	for _, r := range d.ipamStatus().Ranges {
		shown := statuspage.Range{CIDR: r.CIDR, Owners: r.Owners}
		for _, p := range d.ipam.Parts(r.CIDR, pageParts) {
			shown.Parts = append(shown.Parts, statuspage.Part(p))
		}
		s.Ranges = append(s.Ranges, shown)
	}
	return s
}
