package dns

import (
	"net/netip"
	"os"
	"sync"
	"syscall"

	"github.com/miekg/dns"
)

// resolvConf reads the resolvers from a file in the form of resolv.conf(5), and again when it has changed. Its methods may
// be called concurrently.
type resolvConf struct {
	path string // constant

	mu sync.Mutex
	// Guarded by mu: the file as it was last read.
	read  os.FileInfo  // nil: never
	addrs []netip.Addr // replaced, never modified
}

// servers returns the addresses of the resolvers, in order. While the file cannot be read it returns the latest ones.
func (c *resolvConf) servers() []netip.Addr {
	c.mu.Lock()
	defer c.mu.Unlock()
	info, err := os.Stat(c.path)
	if err != nil || c.read != nil && sameContent(c.read, info) {
		return c.addrs
	}
	conf, err := dns.ClientConfigFromFile(c.path)
	if err != nil {
		return c.addrs
	}
	c.read, c.addrs = info, nil
	for _, s := range conf.Servers {
		if a, err := netip.ParseAddr(s); err == nil {
			c.addrs = append(c.addrs, a.Unmap())
		}
	}
	return c.addrs
}

// sameContent reports whether a file is the same as before, and was not written. Its times and its size alone do not show it: a
// symlink may lead to another file that has the same ones, and tools set the time of modification. They cannot set that of the last
// change (st_ctime in inode(7)).
func sameContent(before, now os.FileInfo) bool {
	was, ok := before.Sys().(*syscall.Stat_t)
	is, also := now.Sys().(*syscall.Stat_t)
	return ok && also && os.SameFile(before, now) && was.Ctim == is.Ctim && was.Size == is.Size && was.Mtim == is.Mtim
}
