package node

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/google/renameio/v2"
	"github.com/hashicorp/memberlist"

	"weft/internal/api"
	"weft/internal/apiserver"
	"weft/internal/controlplane"
	"weft/internal/datapath"
	"weft/internal/dns"
	"weft/internal/exposure"
	"weft/internal/guard"
	"weft/internal/health"
	"weft/internal/hint"
	"weft/internal/hostcheck"
	"weft/internal/hostnet"
	"weft/internal/leases"
	"weft/internal/leases/deletions"
	"weft/internal/leases/holder"
	"weft/internal/podlink"
	"weft/internal/settings"
	"weft/internal/statedir"
	"weft/internal/statuspage"
	"weft/ipam"
	"weft/mesh"
	"weft/router/carrier/wireguard"
	"weft/router/session"
)

// node is one node: its parts, and what they have in common. The fields are constant after build.
type node struct {
	cfg       settings.Config
	log       *slog.Logger
	recent    *logRing
	advertise netip.Addr // at the start; n.underlay follows its changes
	mtu       int        // of pods, in bytes, at the start
	started   time.Time
	identity  mesh.Identity

	// The parts, each below those that follow.
	transport memberlist.Transport
	networks  networks
	members   *controlplane.Members
	underlay  *underlayFollower
	mesh      *mesh.Mesh
	ipam      *ipam.Allocator
	registry  *dns.Registry
	dns       *dns.Server // nil: turned off
	exposure  *exposure.Store
	datapath  *datapath.Datapath
	leases    *leases.Manager
	hostCheck *hostcheck.Checker
	health    *health.Registry
	reloader  *reloader
	server    *apiserver.Server

	socket, http net.Listener // http is nil where it is turned off
	events       *controlplane.IPAMEvents
	left         chan struct{} // closed when the node has left the network
	leftOnce     sync.Once
}

// findWireGuard notes whether the host has WireGuard, and returns why it is of no use where the operator allows it.
func findWireGuard(cfg *settings.Config, advertise netip.Addr, sealed bool) error {
	if !cfg.AllowsTunnels(sealed) {
		return nil
	}
	underlay, err := hostnet.UnderlayMTU(advertise)
	if err != nil {
		return err
	}
	fits := wireguard.MTU(underlay, advertise.Is6())
	switch least := max(cfg.MinOverlayMTU(), wireguard.MinMTU); {
	case fits < least:
		return fmt.Errorf("the underlay's MTU of %d leaves %d bytes for pods in WireGuard, which need at least %d", underlay, fits, least)
	case cfg.MTU > fits:
		return fmt.Errorf("--mtu %d is more than the %d bytes that WireGuard leaves for pods", cfg.MTU, fits)
	}
	err = wireguard.Available(cfg.TunnelDevice(), cfg.WireGuardDevice != "")
	cfg.HasWireGuard = err == nil
	return err
}

// build makes all parts of a node and binds everything that it listens on. If it fails, it closes what it bound.
func build(given settings.Config, process Process, creds credentials, advertise netip.Addr, st *state) (_ *node, err error) {
	cfg := given
	if cfg.Queues == 0 {
		cfg.Queues = min(runtime.NumCPU(), settings.MaxQueues)
	}
	noWireGuard := findWireGuard(&cfg, advertise, creds.sealed())
	if noWireGuard != nil && cfg.WireGuardDevice != "" {
		return nil, hint.Refuse("--wireguard-device", "Fix the error, or start without this flag.", "%w", noWireGuard)
	}
	mtu, err := cfg.OverlayMTU(advertise, creds.sealed())
	if err != nil {
		return nil, err
	}
	reserveProcessors(cfg.Queues)
	n := &node{
		cfg: cfg, advertise: advertise, mtu: mtu, started: time.Now(), identity: st.identity,
		left: make(chan struct{}),
	}
	n.log, n.recent = withLogRing(process.Log)
	if noWireGuard != nil {
		n.log.Info("frames that must be encrypted are carried in userspace", "err", noWireGuard)
	}
	if least := cfg.MinOverlayMTU(); n.mtu < least {
		return nil, hint.Refuse("--mtu", "Raise the MTU of the underlay, or set --mtu; IPv6 needs 1280 (RFC 8200).",
			"the underlay leaves %d bytes for pods, which need at least %d", n.mtu, least)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.closeListeners())
		}
	}()
	if err := n.listen(); err != nil {
		return nil, err
	}
	n.members = controlplane.NewMembers(n.identity.ID, cfg.Name)
	tunnel := &datapath.Tunnel{}
	if err := n.buildMesh(st, creds, tunnel); err != nil {
		return nil, err
	}
	if err := n.buildIPAM(st); err != nil {
		return nil, err
	}
	if err := n.buildNames(); err != nil {
		return nil, err
	}
	if err := n.buildDatapath(creds.sessionSecrets(), tunnel); err != nil {
		return nil, err
	}
	n.underlay = newUnderlayFollower(n.cfg, n.advertise, creds.sealed(), n.mesh, n.datapath, n.log)
	n.buildLeases()
	n.buildHostCheck(creds.sealed())
	// It compares with the configuration as it was given.
	n.reloader = newReloader(given, process, creds, n.identity, n.underlay, n.mesh, n.datapath, n.log)
	n.health = health.New(health.Config{
		Sources: []health.Source{n.clusterFindings(), n.leases, n.datapath, n.hostCheck, n.underlay, stateDisk{cfg.StateDir}},
		Requirements: []health.Requirement{
			n.datapath, n.hostCheck, stateDisk{cfg.StateDir}, addressRequirement{n.ipam, cfg.LazyBootstrap()}, n.underlay,
		},
		Logger: n.log,
	})
	if err := n.buildServer(); err != nil {
		return nil, err
	}
	return n, nil
}

// listen binds the gossip port and the HTTP address. The data ports and the API's socket follow once their parts are made.
func (n *node) listen() (err error) {
	if n.transport, err = mesh.Listen(netip.AddrPortFrom(hostnet.Unspecified(), uint16(n.cfg.Port)), n.log); err != nil {
		return err
	}
	if n.cfg.HTTPAddr != "" {
		var lc net.ListenConfig
		if n.http, err = lc.Listen(context.Background(), "tcp", n.cfg.HTTPAddr); err != nil {
			return hint.Refuse("--http-addr", "Choose another address, or an empty one to turn it off.", "%w", err)
		}
	}
	return nil
}

// closeListeners closes everything that a node listens on, for one that is not run.
func (n *node) closeListeners() error {
	var errs []error
	if n.transport != nil {
		errs = append(errs, n.transport.Shutdown())
	}
	if n.datapath != nil {
		errs = append(errs, n.datapath.Close())
	}
	for _, l := range []net.Listener{n.http, n.socket} {
		if l != nil {
			errs = append(errs, l.Close())
		}
	}
	return errors.Join(errs...)
}

func (n *node) buildMesh(st *state, creds credentials, tunnel mesh.Tunnel) (err error) {
	n.mesh, err = mesh.New(mesh.Config{
		Identity: n.identity, Name: n.cfg.Name, Ranges: n.cfg.Ranges, Version: n.cfg.Version, DNSDomain: publishedDomain(n.cfg.Domain()),
		Transport: n.transport, Targets: st.targets, Peers: n.cfg.Targets(),
		Advertise: netip.AddrPortFrom(n.advertise, uint16(n.cfg.Port)), DataPort: n.cfg.DataPort(), Cluster: clusterName,
		Capabilities: uint32(n.cfg.Offer()), Keys: gossipKeys(creds.secrets), Signed: creds.signed,
		Revoked:   revokedFile(filepath.Join(n.cfg.StateDir, statedir.RevokedFile)),
		Discovery: !n.cfg.NoDiscovery, Tunnel: tunnel, Observer: n.members, Logger: n.log,
	})
	return err
}

func (n *node) buildIPAM(st *state) (err error) {
	n.events = controlplane.NewIPAMEvents(n.mesh)
	n.ipam, err = ipam.New(ipam.Config{
		Self: n.identity.ID, Ranges: n.cfg.Ranges, InitPeers: n.cfg.BootstrapNodes(), Lazy: n.cfg.LazyBootstrap(),
		Store: st.addresses, Gossip: controlplane.GossipOn(n.mesh, mesh.ChannelIPAM, n.log), Logger: n.log.With("component", "ipam"),
		Membership: controlplane.ForIPAM(n.members, n.mesh), Events: n.events, Apart: &n.networks,
	})
	if err != nil {
		if e, ok := errors.AsType[*ipam.StoredRangeError](err); ok {
			return hint.Refuse("--range", e.Hint(), "%w", err)
		}
		return hint.Refuse(filepath.Join(n.cfg.StateDir, statedir.StoreFile), "Fix the error, or start with another --state-dir.", "%w", err)
	}
	n.mesh.Register(mesh.ChannelIPAM, n.ipam)
	controlplane.PublishClusterIDs(n.ipam.ClusterIDs(), n.mesh)
	return nil
}

// buildNames makes the registry of names, with those of earlier runs, and the name server unless it is turned off.
func (n *node) buildNames() (err error) {
	path := filepath.Join(n.cfg.StateDir, statedir.NamesFile)
	initial, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return hint.Refuse(path, "Make it readable, or remove it and add the names again.", "%w", err)
	}
	if n.registry, err = dns.NewRegistry(dns.RegistryConfig{
		Self: n.identity.ID, Domain: n.cfg.Domain(), Initial: bytes.TrimSpace(initial), Logger: n.log,
		Store: namesFile(path), Gossip: controlplane.GossipOn(n.mesh, mesh.ChannelDNS, n.log),
		Membership: controlplane.ForDNS(n.members, n.mesh),
	}); err != nil {
		return hint.Refuse(path, "Restore the file, or remove it and add the names again.", "%w", err)
	}
	n.networks.use(n.registry)
	n.mesh.Register(mesh.ChannelDNS, n.registry)
	if n.cfg.NoDNS {
		return nil
	}
	n.dns, err = dns.New(dns.Config{Names: n.registry, Ranges: n.cfg.Ranges, Host: &localHost{}, Logger: n.log})
	return err
}

// namesFile is the file of this node's names. It implements dns.Store.
type namesFile string

// Save implements dns.Store.
func (f namesFile) Save(state []byte) error { return renameio.WriteFile(string(f), state, 0o600) }

func (n *node) buildDatapath(secrets []session.Secret, tunnel *datapath.Tunnel) (err error) {
	cfg := datapath.Config{
		Self: n.identity.ID, Private: n.identity.Private(), Cluster: clusterName, Settings: n.cfg, Advertise: n.advertise, MTU: n.mtu,
		Secrets: secrets, Trusted: n.cfg.TrustedSubnets,
		Membership: view{n.mesh, n.members}, Gossip: n.mesh, Tunnel: tunnel, Shares: n.ipam, Logger: n.log,
	}
	cfg.Sources = n.ipam
	path := filepath.Join(n.cfg.StateDir, statedir.ExposedFile)
	if n.exposure, err = exposure.Open(path); err != nil {
		return hint.Refuse(path, "Restore the file, or remove it and run \"weft expose\" again.", "%w", err)
	}
	cfg.Exposure, cfg.Addresses = n.exposure, ownLeases{n.ipam, n.exposure}
	path = filepath.Join(n.cfg.StateDir, statedir.GuardFile)
	if cfg.Guards, err = guard.OpenStore(path); err != nil {
		return hint.Refuse(path, "Restore the file, or remove it and attach the pods again.", "%w", err)
	}
	if !n.cfg.NoARPProxy {
		cfg.Owners = n.ipam
	}
	if n.dns != nil {
		cfg.Observer = n.dns
	}
	n.datapath, err = datapath.New(cfg)
	return err
}

func (n *node) buildLeases() {
	grace := n.cfg.LeaseGrace
	if grace == 0 {
		grace = settings.DefaultLeaseGrace
	}
	n.leases = leases.New(leases.Config{
		Self: n.identity.ID, Ranges: n.cfg.Ranges, Bridge: n.cfg.Bridge, Grace: grace, Allocator: n.ipam, Host: n.datapath,
		Exposure: n.exposure,
		Names:    names{n.registry, n.cfg, n.members}, Nodes: n.members, Links: podlink.New(), Deletions: deletions.Open(n.cfg.Socket),
		Probes:    n.cfg.DirectRouting == settings.DirectRoutingAuto,
		DNSDomain: n.cfg.Domain(), DNS: n.dns != nil,
		Guards: n.datapath, Guard: cmp.Or(n.cfg.Guard, api.GuardHost), GuardByRequest: inKubernetes(), Logger: n.log,
	})
}

// inKubernetes reports whether this process is in a pod of Kubernetes, as all clients of its API find out.
func inKubernetes() bool { return os.Getenv("KUBERNETES_SERVICE_HOST") != "" }

func (n *node) buildServer() (err error) {
	if n.socket, err = apiserver.ListenSocket(n.cfg.Socket); err != nil {
		return err
	}
	documents := documents{n}
	page, err := statuspage.New(statuspage.Config{Source: documents, Logger: n.log})
	if err != nil {
		return err
	}
	n.server = apiserver.New(apiserver.Config{
		Socket: n.socket, HTTP: n.http, Documents: documents, Leases: n.leases,
		Names:   requestedNames{names{n.registry, n.cfg, n.members}, n.leases},
		Cluster: n.cluster(), Health: readiness{n.health, n.ipam}, Captures: captures{n.datapath}, Diagnostics: diagnostics{n.cfg, n.mesh,
			n.recent},
		Traffic: trafficWatches{documents}, Metrics: n.metrics(), Page: page, Logger: n.log,
	})
	return nil
}

// ownLeases are the leases of this node. It implements datapath.Leases.
type ownLeases struct {
	ipam     *ipam.Allocator
	exposure *exposure.Store
}

// ProbeAddresses implements datapath.Leases.
func (o ownLeases) ProbeAddresses() (addrs []netip.Addr) {
	for _, l := range o.ipam.Lookup(holder.ForProbes().String()) {
		addrs = append(addrs, l.Addr)
	}
	return addrs
}

// PodLinks implements datapath.Leases.
func (o ownLeases) PodLinks() (names []string) {
	for _, l := range o.ipam.Leases() {
		if name, ok := holder.Parse(l.Holder).HostLink(); ok {
			names = append(names, name)
		}
	}
	return names
}

// HostAddresses implements datapath.Leases.
func (o ownLeases) HostAddresses() (addrs []netip.Prefix) {
	for _, l := range o.ipam.Lookup(holder.ForHost().String()) {
		addrs = append(addrs, o.exposure.Prefix(l.Prefix()))
	}
	return addrs
}
