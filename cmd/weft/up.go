package main

import (
	"context"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"weft/internal/api"
	"weft/internal/hint"
	"weft/internal/node"
	"weft/internal/settings"
	"weft/internal/usage"
)

// envPrefix is the prefix of the environment variables that set flags of "weft up".
const envPrefix = "WEFT_"

// upOptions holds the flags of "weft up". Flags that need parsing beyond pflag are strings here, and convert sets the
// fields of the Config from them.
type upOptions struct {
	settings.Config
	advertise      string
	ranges         []string
	trustedSubnets []string
	configFile     string
	logLevel       string
}

func newUpCommand(e *env) *cobra.Command {
	o := &upOptions{}
	cmd := &cobra.Command{
		Use:   "up [flags] [PEER...]",
		Short: "Run a node in the foreground",
		Long: "Run a node in the foreground. PEER is HOST or HOST:PORT of any other node, with an IPv6 address in brackets; the\n" +
			"node does not need to run yet. Peers are dialed without a time limit, and their names are resolved again at\n" +
			"every attempt.\n\n" +
			"SIGTERM stops the daemon and leaves bridge, pods and addresses for the next start; \"weft leave\" removes them.\n" +
			"SIGHUP has the effect of \"weft reload\". If the daemon cannot start with its settings, it prints which flag\n" +
			"is wrong and how to fix it, exits with code 2, and has changed nothing on the host.\n\n" +
			"Each flag is also read from the environment (--state-dir from WEFT_STATE_DIR) and from the --config file\n" +
			"(YAML, with the flags as keys). A flag overrides the environment, the environment overrides the file, and the\n" +
			"file overrides the default. An unknown variable WEFT_… is an error, except those that Kubernetes sets for a\n" +
			"Service called weft.",
		Example: "  weft up host1 host2\n  weft up --secret-file /etc/weft/secret --range 10.32.0.0/12 --range fd00:77::/48 host1",
		Args:    usage.Arguments(0, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Peers = args
			return runUp(cmd.Context(), e, cmd.Flags(), o)
		},
	}
	o.addFlags(cmd.Flags())
	completeModes(cmd)
	return cmd
}

func (o *upOptions) addFlags(f *pflag.FlagSet) {
	host, _ := os.Hostname() // Validate rejects an empty name, with a hint
	f.StringVar(&o.Name, "name", host, "`nickname` of the node, for people; need not be unique")
	f.StringVar(&o.StateDir, "state-dir", settings.DefaultStateDir,
		"`folder` for the node's key, address ring, leases and targets; do not share it between nodes")
	f.StringVar(&o.Socket, "socket", settings.DefaultSocket, "`path` of the socket that the API listens on")
	f.StringVar(&o.Bridge, "bridge", settings.DefaultBridge, "`name` of the bridge that pods are attached to; created if it is missing")
	f.StringVar(&o.Tap, "tap", settings.DefaultTap, "`name` of the TAP device")
	f.IntVar(&o.Port, "port", settings.DefaultPort,
		"TCP and UDP `port` of gossip; data uses the next UDP port, then follow the kernel's VXLAN, WireGuard, and VXLAN in its tunnels")
	f.StringVar(&o.advertise, "advertise", "",
		"`IP` address at which other nodes reach this node (default: detected); behind a NAT that forwards the ports to this host, the "+
			"outside address")
	f.StringSliceVar(&o.ranges, "range", []string{settings.DefaultRange},
		"address range (`CIDR`) of the overlay, the same on all nodes; repeat the flag for dual stack")
	f.IntVar(&o.InitPeers, "init-peers", settings.BootstrapFromPeers,
		"number of bootstrap nodes that must be connected before the range is first divided; 0: this node never bootstraps")
	f.Lookup("init-peers").DefValue = "1 + number of PEERs"
	f.StringVar(&o.SecretFile, "secret-file", "", "`file` with the cluster's secrets, one per line; enables encryption of all traffic")
	f.BoolVar(&o.WatchSecret, "watch-secret", false,
		"reload when the content of --secret-file, --identity or --identity-ca changes, as Kubernetes changes them")
	f.BoolVar(&o.Plain, "plain", false,
		"run without encryption on a node that has had a secret; without this flag such a node does not start without one")
	f.StringVar(&o.IdentityFile, "identity", "",
		"`file` with the certificate of this node and the CAs that it trusts, as \"weft ca sign\" prints it; only nodes with a certificate "+
			"are admitted then, or with a common secret if there is a --secret-file as well")
	f.StringVar(&o.IdentityCAFile, "identity-ca", "",
		"`file` with the CAs that this node trusts, as \"weft ca init\" writes it, instead of the CAs in the file of --identity")
	f.StringVar(&o.Cipher, "cipher", "auto", "auto, aes-256-gcm or chacha20-poly1305; auto selects a cipher that is fast on both ends")
	f.StringVar(&o.AES, "aes", settings.AESAuto,
		"auto or standard: with auto, CPUs with VAES encrypt by it, twice as fast as by Go's standard library; standard uses the library "+
			"on every CPU; a node does not notice what its peers use")
	f.StringSliceVar(&o.trustedSubnets, "trusted-subnets", nil,
		"underlay subnets (`CIDRs`) to which data is not encrypted if both ends agree; repeat the flag, or separate them by commas")
	f.StringVar(&o.Datapath, "datapath", "auto",
		"auto (the kernel carries frames that need no relay, see --carriers), userspace, or kernel (like auto, but fail to start "+
			"if the kernel cannot)")
	f.StringSliceVar(&o.Carriers, "carriers", settings.Modes()["carriers"],
		"what of the kernel may carry frames (`LIST`): vxlan (those that need no encryption), wireguard (those that do, between nodes that "+
			"have it; it has the cipher ChaCha20-Poly1305 only), direct (see --direct-routing)")
	f.StringVar(&o.DirectRouting, "direct-routing", settings.DirectRoutingOff,
		"off or auto: with auto, packets between pods of nodes on one link, which need no encryption, are routed over it without a header, "+
			"where both nodes have this flag and the link passes them; a hop is visible to pods (TTL, the sender's MAC address)")
	f.StringVar(&o.WireGuardDevice, "wireguard-device", "",
		"`name` of a device of WireGuard that exists and is for this node alone, as programs other than the kernel make one; default: the "+
			"kernel makes one")
	f.StringVar(&o.Offload, "offload", "auto", "auto or off: segmentation and checksum offloads of the TAP and of the data sockets")
	f.StringVar(&o.DSCP, "dscp", settings.DSCPNone,
		"none or copy: the DSCP of the datagrams between nodes is 0, or that of the frame in each; copy only if the underlay honors the "+
			"classes that pods choose, as others bleach or police them")
	f.StringVar(&o.SourcePorts, "source-ports", settings.SourcePortsAuto,
		"auto, flow or one: with flow, flows leave from as many UDP ports as there are queues, where the other node receives them from "+
			"there, so that network cards and paths of equal cost distribute them; with one, all leave from the data port; auto is flow "+
			"on nodes with 4 queues or more")
	f.StringVar(&o.BusyPoll, "busy-poll", settings.BusyPollOff,
		"off or auto: with auto, idle CPUs of this host stay awake while frames of pods come, so that each of them waits less for a CPU; "+
			"it costs power, on a virtual machine CPU time of the hypervisor, and nothing on an idle node")
	f.IntVar(&o.MTU, "mtu", 0, "MTU of the pods (default, or 0: the largest that fits the underlay)")
	f.IntVar(&o.Queues, "queues", 0, "queues of the TAP (default, or 0: one per CPU, at most 8)")
	f.BoolVar(&o.NoDiscovery, "no-discovery", false, "dial only PEERs and connected targets, not members seen in earlier runs")
	f.DurationVar(&o.LeaseGrace, "lease-grace", settings.DefaultLeaseGrace,
		"release the lease of an attachment after its interfaces have been missing for this long")
	f.StringVar((*string)(&o.Guard), "guard", string(api.GuardHost),
		"what pods may send: pods (only with their own MAC and addresses, without VLAN tags), host (no router advertisements, redirects "+
			"and DHCP servers), or off; pods and host also protect this host from pods and peers")
	f.IntVar(&o.BroadcastLimit, "broadcast-limit", settings.DefaultBroadcastLimit,
		"drop broadcasts and neighbor solicitations of a pod beyond this `number` a second; 0 is no limit, and so is --guard off")
	f.BoolVar(&o.NoARPProxy, "no-arp-proxy", false,
		"send ARP requests and neighbor solicitations of pods to all nodes, not only to the owner of the address")
	f.StringVar(&o.SourceCheck, "source-check", settings.SourceCheckLog,
		"sealed frames of a peer with the source address of another node's pod: log (count and warn), enforce (drop them, too) or off")
	f.StringVar(&o.DNSDomain, "dns-domain", settings.DefaultDNSDomain,
		"`domain` of the names of pods, the same on all nodes; choose one below a domain that you own where .local belongs to mDNS")
	f.BoolVar(&o.NoDNS, "no-dns", false, "do not answer DNS queries for names of pods on the bridge's address")
	f.BoolVar(&o.NoMasquerade, "no-masquerade", false, "do not masquerade traffic that leaves the overlay, and do not make the host a router")
	f.BoolVar(&o.AllowOverlap, "allow-overlap", false, "allow a range that overlaps a route of the host")
	f.BoolVar(&o.TakeOver, "take-over", false,
		"wait while another daemon with this flag runs on this host, and replace it when it stops")
	f.StringVar(&o.HTTPAddr, "http-addr", settings.DefaultHTTPAddr,
		"`IP:PORT` of metrics, health checks and the status page; empty disables them")
	f.IntVar(&o.PeerMetrics, "peer-metrics", settings.DefaultPeerMetrics,
		"up to this `number` of live peers, each has metrics of its own; with more, there are only sums over all")
	f.StringVar(&o.configFile, "config", "", "YAML `file` with the flags as keys")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&o.LogFormat, "log-format", logText, "text or json")
}

func runUp(ctx context.Context, e *env, flags *pflag.FlagSet, o *upOptions) error {
	line := recordCommandLine(flags, o.Peers)
	if err := o.evaluate(flags); err != nil {
		return err
	}
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	defer signal.Stop(reload)
	process := node.Process{Level: &slog.LevelVar{}, Configuration: line, ReloadSignal: reload}
	process.Level.Set(o.LogLevel)
	process.Log = newLog(e.stderr, process.Level, o.LogFormat)
	return node.Run(ctx, o.Config, process)
}

// evaluate sets the Config from the flags of the command line, the environment and the --config file.
func (o *upOptions) evaluate(flags *pflag.FlagSet) error {
	if err := o.fill(flags); err != nil {
		return err
	}
	o.Version = buildVersion()
	return o.convert()
}

// fill sets the flags that are not on the command line from the environment and the file.
func (o *upOptions) fill(flags *pflag.FlagSet) error {
	path := o.configFile
	if !flags.Changed("config") {
		path = os.Getenv(envPrefix + "CONFIG")
	}
	var text []byte
	if path != "" {
		var err error
		if text, err = os.ReadFile(path); err != nil {
			return hint.Refuse("--config", "Name a readable YAML file.", "%w", err)
		}
	}
	return settings.Fill(flags, envPrefix, settings.Environment(), path, text, "config", "help", "version", "wait")
}

// convert parses the flags that are lists, addresses and levels.
func (o *upOptions) convert() (err error) {
	if o.Ranges, err = parsePrefixes("range", o.ranges); err != nil {
		return err
	}
	if o.TrustedSubnets, err = parsePrefixes("trusted-subnets", o.trustedSubnets); err != nil {
		return err
	}
	if o.advertise != "" {
		if o.Advertise, err = netip.ParseAddr(o.advertise); err != nil {
			return hint.Refuse("--advertise", "Use an address such as 192.168.1.2.", "%q is not an IP address", o.advertise)
		}
	}
	if err := o.LogLevel.UnmarshalText([]byte(o.logLevel)); err != nil {
		return hint.Refuse("--log-level", "Choose debug, info, warn or error.", "%q is unknown", o.logLevel)
	}
	if o.LogFormat != logText && o.LogFormat != logJSON {
		return hint.Refuse("--log-format", "Choose text or json.", "%q is unknown", o.LogFormat)
	}
	return nil
}

func parsePrefixes(flag string, list []string) ([]netip.Prefix, error) {
	prefixes := make([]netip.Prefix, 0, len(list))
	for _, s := range list {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, hint.Refuse("--"+flag, "Use an address and a prefix length, such as 10.32.0.0/12.", "%q is not a CIDR", s)
		}
		prefixes = append(prefixes, p)
	}
	return prefixes, nil
}

// Values of --log-format.
const (
	logText = "text"
	logJSON = "json"
)

// newLog returns a logger that writes text or JSON lines to w.
func newLog(w io.Writer, level slog.Leveler, format string) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if format == logJSON {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
