package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"weft/internal/daemon"
	"weft/internal/settings"
)

// envPrefix starts the environment variables that stand for flags of "weft up".
const envPrefix = "WEFT_"

// upOptions are the flags of "weft up" in the form in which they are written.
type upOptions struct {
	daemon.Config
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
		Long: "Run a node in the foreground. PEER is HOST or HOST:PORT of any node that is or will be there.\n\n" +
			"Each flag is also read from the environment (--state-dir from WEFT_STATE_DIR) and from the --config file\n" +
			"(YAML, the flags as keys). A flag beats the environment, the environment the file, the file the default.",
		Args: between(0, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Peers = args
			return runUp(cmd.Context(), e, cmd.Flags(), o)
		},
	}
	o.addFlags(cmd.Flags())
	return cmd
}

func (o *upOptions) addFlags(f *pflag.FlagSet) {
	host, _ := os.Hostname() // empty is refused by Validate, with a hint
	f.StringVar(&o.Name, "name", host, "nickname of the node, for people")
	f.StringVar(&o.StateDir, "state-dir", daemon.DefaultStateDir, "folder for the node's key, address ring, leases and targets")
	f.StringVar(&o.Socket, "socket", daemon.DefaultSocket, "where the API listens")
	f.StringVar(&o.Bridge, "bridge", daemon.DefaultBridge, "bridge that pods are on; made if it is missing")
	f.StringVar(&o.Tap, "tap", daemon.DefaultTap, "name of the TAP device")
	f.IntVar(&o.Port, "port", daemon.DefaultPort, "UDP and TCP port of gossip; data takes the UDP port after it")
	f.StringVar(&o.advertise, "advertise", "", "IP address that other nodes reach this one at (default: found out)")
	f.StringSliceVar(&o.ranges, "range", []string{daemon.DefaultRange}, "address range of the overlay; repeat it for dual stack")
	f.IntVar(&o.InitPeers, "init-peers", daemon.FoundersFromPeers,
		"how many founding nodes must meet before the range is first divided; 0: this node never founds (default: 1 + number of PEERs)")
	f.StringVar(&o.SecretFile, "secret-file", "", "file with the cluster's secrets, one a line; with it all traffic is encrypted")
	f.StringVar(&o.Cipher, "cipher", "auto", "auto, aes-256-gcm or chacha20-poly1305")
	f.StringSliceVar(&o.trustedSubnets, "trusted-subnets", nil, "underlay subnets to which data is not encrypted")
	f.StringVar(&o.Datapath, "datapath", "auto", "auto, userspace or kernel")
	f.StringVar(&o.Offload, "offload", "auto", "auto or off: segmentation and checksum offloads")
	f.IntVar(&o.MTU, "mtu", 0, "MTU of the pods; 0 takes it from the underlay")
	f.IntVar(&o.Queues, "queues", 0, "queues of the TAP; 0 takes one a CPU, at most 8")
	f.BoolVar(&o.NoDiscovery, "no-discovery", false, "dial only PEERs and connected targets, not members seen in earlier runs")
	f.DurationVar(&o.LeaseGrace, "lease-grace", daemon.DefaultLeaseGrace, "end the lease of an attachment whose interfaces have been gone for this long")
	f.BoolVar(&o.NoARPProxy, "no-arp-proxy", false, "send ARP requests and neighbour solicitations of pods to all nodes")
	f.BoolVar(&o.NoDNS, "no-dns", false, "do not answer for names (.weft.local) on the bridge's address")
	f.BoolVar(&o.NoMasquerade, "no-masquerade", false, "do not masquerade traffic that leaves the overlay")
	f.BoolVar(&o.AllowOverlap, "allow-overlap", false, "allow a range that overlaps a route of the host")
	f.BoolVar(&o.TakeOver, "take-over", false, "wait while another daemon with this flag runs on this host, and take its place when it stops")
	f.StringVar(&o.HTTPAddr, "http-addr", daemon.DefaultHTTPAddr, "address of metrics and health checks; empty turns them off")
	f.StringVar(&o.configFile, "config", "", "YAML file with the flags as keys")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&o.LogFormat, "log-format", logText, "text or json")
}

func runUp(ctx context.Context, e *env, flags *pflag.FlagSet, o *upOptions) error {
	line := recordGiven(flags, o.Peers)
	if err := o.evaluate(flags); err != nil {
		return err
	}
	program := daemon.Program{Level: &slog.LevelVar{}, Reread: line.reread}
	program.Level.Set(o.LogLevel)
	program.Log = newLog(e.stderr, program.Level, o.LogFormat)
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	program.Hangups = hangups
	return daemon.Run(ctx, o.Config, program)
}

// evaluate makes the Config of the flags that the command line set, and of what else was said.
func (o *upOptions) evaluate(flags *pflag.FlagSet) error {
	if err := o.fill(flags); err != nil {
		return err
	}
	o.Version = buildVersion()
	return o.convert()
}

// fill takes what the command line did not say from the environment and the file.
func (o *upOptions) fill(flags *pflag.FlagSet) error {
	path := o.configFile
	if !flags.Changed("config") {
		path = os.Getenv(envPrefix + "CONFIG")
	}
	var text []byte
	if path != "" {
		var err error
		if text, err = os.ReadFile(path); err != nil {
			return &usageError{fmt.Errorf("--config: %w", err), "Name a YAML file that can be read."}
		}
	}
	return settings.Fill(flags, envPrefix, os.LookupEnv, path, text, "config", "help")
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
			return &usageError{fmt.Errorf("--advertise: %q is no IP address", o.advertise), "Give an address such as 192.168.1.2."}
		}
	}
	if err := o.LogLevel.UnmarshalText([]byte(o.logLevel)); err != nil {
		return &usageError{fmt.Errorf("--log-level: %q is unknown", o.logLevel), "Choose debug, info, warn or error."}
	}
	if o.LogFormat != logText && o.LogFormat != logJSON {
		return &usageError{fmt.Errorf("--log-format: %q is unknown", o.LogFormat), "Choose text or json."}
	}
	return nil
}

func parsePrefixes(flag string, list []string) ([]netip.Prefix, error) {
	prefixes := make([]netip.Prefix, 0, len(list))
	for _, s := range list {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, &usageError{fmt.Errorf("--%s: %q is no CIDR", flag, s), "Write an address and a prefix length, such as 10.32.0.0/12."}
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

// newLog returns the daemon's logger.
func newLog(w io.Writer, level slog.Leveler, format string) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if format == logJSON {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
