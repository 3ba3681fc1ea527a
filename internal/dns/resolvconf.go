package dns

import (
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// resolvConf reads the resolvers from a file in the form of resolv.conf(5), and again when it has changed. Its methods may
// be called concurrently.
type resolvConf struct {
	path string // constant

	mu sync.Mutex
	// Guarded by mu: the file as it was last read.
	modified time.Time
	size     int64
	addrs    []netip.Addr // replaced, never modified
}

// servers returns the addresses of the resolvers, in order. While the file cannot be read it returns the latest ones.
func (c *resolvConf) servers() []netip.Addr {
	c.mu.Lock()
	defer c.mu.Unlock()
	info, err := os.Stat(c.path)
	if err != nil || info.ModTime().Equal(c.modified) && info.Size() == c.size {
		return c.addrs
	}
	conf, err := dns.ClientConfigFromFile(c.path)
	if err != nil {
		return c.addrs
	}
	c.modified, c.size, c.addrs = info.ModTime(), info.Size(), nil
	for _, s := range conf.Servers {
		if a, err := netip.ParseAddr(s); err == nil {
			c.addrs = append(c.addrs, a.Unmap())
		}
	}
	return c.addrs
}
