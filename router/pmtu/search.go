package pmtu

import (
	"sort"
	"time"
)

// common are frequent MTUs of underlay paths in bytes, with the headers, in ascending order.
var common = [...]int{
	1280, // the minimum of IPv6 (RFC 8200), and cautious tunnels
	1300, 1350, 1376, 1380,
	1400, // IPsec, mobile networks
	1412, 1414,
	1420, // WireGuard
	1430, 1436,
	1440, 1442, // WireGuard over IPv4, Geneve
	1446, 1450, // VXLAN
	1454, 1458,
	1460,                   // Google Cloud
	1468, 1472, 1476, 1480, // GRE, 6in4
	1488, 1492, // PPPoE
	1496, 1500, // Ethernet
	2002, 4352, 4470,
	8500, 8896, 8942, 8950, // Google Cloud, tunnels over jumbo frames
	9000, 9001, // jumbo frames, AWS
	9216,
}

// search begins or widens a search for a size above the present one and below above.
func (p *Prober) search(above int) {
	p.searching, p.above = true, above
}

// finishSearch ends the search when its bounds meet.
func (p *Prober) finishSearch(now time.Time) {
	if p.searching && p.size+1 >= min(p.above, p.max+1) {
		p.searching, p.hint = false, 0
		p.raiseAt = now.Add(p.pause)
		p.pause = min(2*p.pause, raiseEach)
	}
}

// candidate returns the next size to try, between the bounds, which have not met. The order is: a reported size and one
// byte more, Max, the middle one of the common sizes, one byte more than a common size that passed, and finally the
// middle of the bounds.
func (p *Prober) candidate() int {
	if hint := p.hint; hint > p.size && hint < p.above {
		return hint
	}
	switch {
	case p.named:
		return p.size + 1
	case p.above > p.max:
		return p.max
	}
	low := sort.SearchInts(common[:], p.size+1+p.overhead)
	high := sort.SearchInts(common[:], p.above+p.overhead)
	switch {
	case low < high:
		return common[(low+high)/2] - p.overhead
	case p.likely:
		return p.size + 1
	default:
		return p.size + (p.above-p.size)/2
	}
}

// isCommon reports whether size belongs to a common MTU.
func (p *Prober) isCommon(size int) bool {
	mtu := size + p.overhead
	at := sort.SearchInts(common[:], mtu)
	return at < len(common) && common[at] == mtu
}
