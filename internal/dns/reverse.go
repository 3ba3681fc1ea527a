package dns

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// reverseTrees are the domains of reverse lookups. Below them an address is a name, with its first part in the last label
// (RFC 1035, 3.5; RFC 3596, 2.5).
var reverseTrees = []struct {
	domain string
	bits   int // bits of the address in each label
	base   int // base of the number in a label
	size   int // bytes of an address
}{
	{"in-addr.arpa.", 8, 10, 4},
	{"ip6.arpa.", 4, 16, 16},
}

// reversed is a name below one of reverseTrees.
type reversed struct {
	prefix netip.Prefix // of the labels that are part of an address
	rest   bool         // there are further labels, which are not part of an address
	labels string       // of the name, in lower case, without the domain
	domain string       // of its tree
	bits   int          // of its tree
}

// parseReverse parses a name below one of reverseTrees. It returns false for other names.
func parseReverse(name string) (r reversed, ok bool) {
	for _, tree := range reverseTrees {
		if !dns.IsSubDomain(tree.domain, name) {
			continue
		}
		r = reversed{domain: tree.domain, bits: tree.bits}
		r.labels = strings.TrimSuffix(strings.ToLower(name[:len(name)-len(tree.domain)]), ".")
		addr := make([]byte, tree.size)
		n := 0
		for _, label := range r.split() {
			v, err := strconv.ParseUint(label, tree.base, tree.bits)
			if err != nil || strconv.FormatUint(v, tree.base) != label || n == 8*tree.size {
				r.rest = true
				break
			}
			addr[n/8] |= byte(v) << (8 - tree.bits - n%8)
			n += tree.bits
		}
		a, _ := netip.AddrFromSlice(addr)
		r.prefix = netip.PrefixFrom(a, n)
		return r, true
	}
	return reversed{}, false
}

// split returns the labels in the order of the address.
func (r *reversed) split() []string {
	if r.labels == "" {
		return nil
	}
	labels := strings.Split(r.labels, ".")
	slices.Reverse(labels)
	return labels
}

// zone returns the zone of a range that contains the prefix: the labels that the range determines, rounded up to a whole
// label.
func (r *reversed) zone(within netip.Prefix) string {
	labels := r.split()[:(within.Bits()+r.bits-1)/r.bits]
	slices.Reverse(labels)
	return strings.Join(append(labels, r.domain), ".")
}

// reverseName answers questions about the names of addresses inside the ranges. It returns false for all other names.
func (s *Server) reverseName(q dns.Question) (answer, bool) {
	r, ok := parseReverse(q.Name)
	if !ok {
		return answer{}, false
	}
	i := slices.IndexFunc(s.cfg.Ranges, func(within netip.Prefix) bool {
		return within.Bits() <= r.prefix.Bits() && within.Contains(r.prefix.Addr())
	})
	if i < 0 {
		return answer{}, false
	}
	a := answer{zone: r.zone(s.cfg.Ranges[i])}
	switch {
	case r.rest: // there are no names below an address
	case strings.EqualFold(a.zone, q.Name) && !r.prefix.IsSingleIP():
		a.exists, a.records = true, s.apex(q, a.zone)
	case !r.prefix.IsSingleIP():
		a.exists = true // it has addresses below it
	default:
		names := s.cfg.Names.Reverse(r.prefix.Addr())
		a.exists = len(names) > 0
		if q.Qtype == dns.TypePTR || q.Qtype == dns.TypeANY {
			for _, name := range names[:min(len(names), maxRecords)] {
				a.records = append(a.records, &dns.PTR{Hdr: header(q.Name, dns.TypePTR), Ptr: name + "." + s.zone})
			}
		}
	}
	return a, true
}
