package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"

	"weft/internal/api"
	"weft/internal/dns"
	"weft/internal/peer"
	"weft/ipam"
	"weft/mesh"
)

// namesFile has this node's names, in the state directory.
const namesFile = "names.json"

// namesOwner is the owner of names that an operator has given without a lease.
const namesOwner = reservedPrefix + "dns"

// newNames makes the registry of names, with those that this node had, and the server, unless it is not wanted.
func (d *Daemon) newNames() (err error) {
	path := filepath.Join(d.cfg.StateDir, namesFile)
	initial, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return refuse(path, "Make it readable, or remove it: names are given again then.", "%w", err)
	}
	if d.names, err = dns.NewRegistry(dns.RegistryConfig{
		Self: d.identity.ID, Initial: bytes.TrimSpace(initial), Logger: d.log,
		Store: namesStore{path}, Gossip: namesGossip{d}, Membership: namesGossip{d},
	}); err != nil {
		return refuse(path, "Restore the file, or remove it: names are given again then.", "%w", err)
	}
	d.mesh.Register(mesh.ChannelDNS, d.names)
	if d.cfg.NoDNS {
		return nil
	}
	d.dns, err = dns.New(dns.Config{Names: d.names, Ranges: d.cfg.Ranges, Host: localHost{}, Logger: d.log})
	return err
}

// namesStore is the file of this node's names as the registry sees it.
type namesStore struct{ path string }

// Save implements dns.Store.
func (s namesStore) Save(state []byte) error { return renameio.WriteFile(s.path, state, 0o600) }

// namesGossip is the mesh as the registry of names sees it.
type namesGossip struct{ d *Daemon }

// Broadcast implements dns.Gossip.
func (g namesGossip) Broadcast(delta []byte) { g.d.broadcast(mesh.ChannelDNS, delta) }

// Alive implements dns.Membership.
func (g namesGossip) Alive(id peer.ID) bool { return g.d.isAlive(id) }

// localHost is the host as the DNS server sees it.
type localHost struct{}

// IsLocal implements dns.Host.
func (localHost) IsLocal(addr netip.Addr) bool { return isLocal(addr) }

// isAlive reports whether a node is. It takes no lock.
func (d *Daemon) isAlive(id peer.ID) bool {
	m, ok := d.member(id)
	return ok && m.State == mesh.StateAlive
}

// serveNames has names answered at the addresses that the bridge has now.
func (p *plane) serveNames() {
	if p.d.dns == nil {
		return
	}
	exposed, err := p.d.exposed()
	if err != nil {
		p.d.log.Debug("looking where names are to be answered", "err", err)
		return
	}
	addrs := make([]netip.Addr, 0, len(exposed))
	for _, e := range exposed {
		addrs = append(addrs, e.Addr())
	}
	p.d.dns.SetAddrs(addrs)
}

// release ends the lease of addr to owner, all of its leases where addr is not valid, and the names that it had there.
func (d *Daemon) release(owner string, addr netip.Addr) error {
	err := d.ipam.Release(owner, addr)
	if errors.Is(err, ipam.ErrUnknownOwner) && !addr.IsValid() && d.orphans.gone(owner) {
		err = nil
	}
	if err == nil || errors.Is(err, ipam.ErrUnknownOwner) {
		d.names.Release(owner, addr)
	}
	return err
}

// forgetNames drops all names of this node, as it leaves.
func (d *Daemon) forgetNames() error {
	var errs []error
	for _, e := range d.names.List() {
		if e.Node == d.identity.ID {
			errs = append(errs, d.names.Remove(e.Name, e.Addr))
		}
	}
	return errors.Join(errs...)
}

// handleNames answers GET /v1/names: all names, those called name where the query has one, those of an address where it has ip.
func (d *Daemon) handleNames(r *http.Request, _ none) ([]api.Name, error) {
	q := r.URL.Query()
	match := func(dns.Entry) bool { return true }
	if q.Has("name") {
		name, err := dns.ParseName(q.Get("name"))
		if err != nil {
			return nil, nameProblem(err)
		}
		match = func(e dns.Entry) bool { return e.Name == name && d.answers(e) }
	} else if q.Has("ip") {
		addr, err := netip.ParseAddr(q.Get("ip"))
		if err != nil {
			return nil, problem(api.KindInvalid, "", "%q is no IP address", q.Get("ip"))
		}
		match = func(e dns.Entry) bool { return e.Addr == addr.Unmap() && d.answers(e) }
	}
	return d.nameDocs(match), nil
}

// nameDocs returns the names that match chooses.
func (d *Daemon) nameDocs(match func(dns.Entry) bool) []api.Name {
	docs := []api.Name{}
	for _, e := range d.names.List() {
		if match(e) {
			docs = append(docs, api.Name{Name: e.Name, IP: e.Addr, Node: e.Node, NodeName: d.nodeName(e.Node), Owner: e.Holder, Answered: d.answers(e)})
		}
	}
	return docs
}

// answers reports whether a name is answered: those of nodes that are not alive are not.
func (d *Daemon) answers(e dns.Entry) bool { return e.Node == d.identity.ID || d.isAlive(e.Node) }

// nodeName is nameOf that knows this node before the mesh has told of it.
func (d *Daemon) nodeName(id peer.ID) string {
	if id == d.identity.ID {
		return d.cfg.Name
	}
	return d.nameOf(id)
}

func (d *Daemon) handleAddName(_ *http.Request, in api.NameRequest) (none, error) {
	for _, ip := range in.IPs {
		if !d.cfg.inRanges(ip) {
			return none{}, problem(api.KindInvalid, "The ranges of the overlay are in \"weft ipam\".", "%s is in none of the overlay's ranges", ip)
		}
	}
	return none{}, nameProblem(d.names.Add(in.Name, namesOwner, in.IPs...))
}

func (d *Daemon) handleRemoveName(_ *http.Request, in api.NameRequest) (none, error) {
	return none{}, nameProblem(d.names.Remove(in.Name, in.IPs...))
}

// nameProblem tells the client what kind of error the registry's is; nil stays nil.
func nameProblem(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, dns.ErrName):
		return problem(api.KindInvalid, "A name is letters, digits and hyphens, with dots between labels, such as web or web.shop.", "%v", err)
	case errors.Is(err, dns.ErrUnknown):
		return problem(api.KindNotFound, "Each node takes back its own: see which in \"weft dns list\".", "%v", err)
	case errors.Is(err, dns.ErrFull):
		return problem(api.KindExhausted, "Remove what is unused: \"weft dns list\".", "%v", err)
	}
	return problem(api.KindInvalid, "Name at least one address of the overlay.", "%v", err)
}

// validName refuses a host name that can be none before anything is done for it; an empty one is fine.
func validName(name string) error {
	if name == "" {
		return nil
	}
	_, err := dns.ParseName(name)
	return nameProblem(err)
}

// nameAttachment gives an attachment the name that was asked for.
func (d *Daemon) nameAttachment(name, owner string, addrs []api.Address) error {
	if name == "" {
		return nil
	}
	ips := make([]netip.Addr, 0, len(addrs))
	for _, a := range addrs {
		ips = append(ips, a.Address.Addr())
	}
	if err := d.names.Add(name, owner, ips...); err != nil {
		return fmt.Errorf("daemon: naming an attachment: %w", err)
	}
	return nil
}
