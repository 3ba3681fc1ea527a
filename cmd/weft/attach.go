package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"weft/internal/api"
	"weft/internal/containers"
	"weft/internal/hint"
	"weft/internal/settings"
	"weft/internal/usage"
)

// namespaceFlags are the flags that select a network namespace, an interface in it and the holder of its addresses.
type namespaceFlags struct {
	netns     string
	pid       int
	container string
	ifname    string
	owner     string
}

func (n *namespaceFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&n.netns, "netns", "", "network namespace: its `path`, or its name in /run/netns")
	cmd.Flags().IntVar(&n.pid, "pid", 0, "ID of a `process` in the network namespace")
	cmd.Flags().StringVar(&n.container, "container", "", "`name` or ID of a running container of Docker or podman, or its ID in containerd")
	cmd.Flags().StringVar(&n.ifname, "ifname", "eth0", "`interface` inside the namespace")
	cmd.Flags().StringVar(&n.owner, "owner", "", "`owner` of the addresses (default: derived from the namespace and the interface)")
}

// netnsDir is where "ip netns" keeps namespaces.
const netnsDir = "/run/netns"

// namespaceFix returns the hint for an argument that is probably the namespace.
func namespaceFix(arg string) string {
	if _, err := strconv.Atoi(arg); err == nil {
		return "Did you mean --pid " + arg + "?"
	}
	if !strings.Contains(arg, "/") {
		arg = filepath.Join(netnsDir, arg)
	}
	return "Did you mean --netns " + arg + "?"
}

// request returns the request that the flags describe, with the namespace as an absolute path, and the name of the container, if they name
// one that has a name.
func (n *namespaceFlags) request(ctx context.Context) (r api.AttachRequest, container string, err error) {
	r = api.AttachRequest{Ifname: n.ifname, Owner: n.owner}
	named := 0
	for _, is := range []bool{n.netns != "", n.pid != 0, n.container != ""} {
		if is {
			named++
		}
	}
	switch {
	case named != 1:
		return r, "", hint.New(hint.Usage, "Name the namespace with --netns, a process in it with --pid, or a container with --container.",
			"exactly one of --netns, --pid and --container is required")
	case n.container != "":
		c, err := containers.Default().Find(ctx, n.container)
		if err != nil {
			return r, "", err
		}
		r.Netns = c.Netns()
		return r, c.Name, nil
	case n.pid < 0:
		return r, "", hint.Refuse("--pid", "Use the ID of a running process.", "%d is not a process ID", n.pid)
	case n.pid > 0:
		r.Netns = fmt.Sprintf("/proc/%d/ns/net", n.pid)
		return r, "", nil
	}
	r.Netns = n.netns
	if !strings.Contains(n.netns, "/") {
		r.Netns = filepath.Join(netnsDir, n.netns) // as "ip netns" names it
	}
	if r.Netns, err = filepath.Abs(r.Netns); err != nil {
		return r, "", hint.Refuse("--netns", "Use an absolute path.", "%w", err)
	}
	return r, "", nil
}

func newAttachCommand(e *env) *cobra.Command {
	n, g := &namespaceFlags{}, &guardFlags{}
	var ips, in, add, remove []string
	hostname, noMulticast := "", false
	cmd := e.addJSONFlag(&cobra.Command{
		Use:   "attach (--netns PATH | --pid N | --container NAME) [flags]",
		Short: "Join a network namespace to the overlay and print its addresses",
		Long: "Join a network namespace to the overlay and print its addresses, one per line. The namespace gets an\n" +
			"interface with an address of each range and a default route through this host. A second call with the same\n" +
			"flags changes nothing and prints the same addresses; with others it changes the attachment: --ip replaces all\n" +
			"its addresses, --add-ip and --remove-ip change single ones. If the namespace has a default route by another\n" +
			"interface, it keeps that, and multicast of IPv4 goes to the overlay. The JSON has the gateway and the names, too.",
		Example: "  weft attach --netns p --hostname web\n  weft attach --pid 4711 --ip 10.32.5.1/12\n" +
			"  weft attach --container web --in 10.32.1.0/24\n" +
			"  weft attach --netns p --add-ip 10.32.5.2 --remove-ip 10.32.5.1",
		Args: usage.None(namespaceFix),
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, container, err := n.request(cmd.Context())
			if err != nil {
				return err
			}
			r.ContainerName = container
			if r.In, err = parseSubnets(in); err != nil {
				return err
			}
			r.IPs, r.AddIPs, r.RemoveIPs, r.Hostname, r.NoMulticastRoute = ips, add, remove, hostname, noMulticast
			if len(in) > 0 && len(ips)+len(add)+len(remove) > 0 {
				return hint.Refuse("--in", "Name subnets with --in, or addresses with --ip, --add-ip and --remove-ip.",
					"weft chooses the addresses in subnets")
			}
			if len(ips) > 0 && len(add)+len(remove) > 0 {
				return hint.Refuse("--ip", "Name all addresses with --ip, or changes with --add-ip and --remove-ip.",
					"it replaces all addresses of the attachment")
			}
			if r.Guard, r.Allow, err = g.values(); err != nil {
				return err
			}
			a, err := e.client().Attach(cmd.Context(), r)
			if err != nil {
				return err
			}
			return e.show(a, func(w io.Writer) {
				for _, addr := range a.Addresses {
					_, _ = fmt.Fprintln(w, addr.Address)
				}
			})
		},
	})
	n.add(cmd)
	completeFlag(cmd, "netns", e.complete(namespaces))
	cmd.Flags().StringVar(&hostname, "hostname", "",
		"DNS `name` of the addresses below --dns-domain of the node (default weft.local), until detach (default with --container: its name)")
	cmd.Flags().StringSliceVar(&ips, "ip", nil,
		"auto (an `address` of each range), or an address as IP or IP/LEN; repeat the flag for several (default auto)")
	cmd.Flags().StringSliceVar(&in, "in", nil,
		"address in this `subnet` of a range, kept apart from what is outside of it; repeat the flag for IPv4 and IPv6")
	cmd.Flags().StringSliceVar(&add, "add-ip", nil,
		"add an `address` as IP or IP/LEN to those of an attachment; repeat the flag for several")
	cmd.Flags().StringSliceVar(&remove, "remove-ip", nil, "remove an `address` from those of an attachment; repeat the flag for several")
	cmd.Flags().BoolVar(&noMulticast, "no-multicast-route", false,
		"leave multicast to the interface that has the default route of the namespace")
	g.add(cmd)
	completeFlag(cmd, "guard", cobra.FixedCompletions(settings.Modes()["guard"], cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// parseSubnets reads the values of --in.
func parseSubnets(texts []string) (subnets []netip.Prefix, err error) {
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, hint.Refuse("--in", "Write a subnet such as 10.32.1.0/24.", "%s is not a subnet", usage.Quote(text))
		}
		subnets = append(subnets, p.Masked())
	}
	return subnets, nil
}

// guardFlags are the flags about what a namespace may send.
type guardFlags struct {
	mode  string
	allow []string
}

func (g *guardFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&g.mode, "guard", "", "what the namespace may send: pods, host or off (default: as \"weft up --guard\")")
	cmd.Flags().StringSliceVar(&g.allow, "allow-address", nil,
		"further `address` or prefix that the namespace may use with --guard pods, such as one that moves between pods; repeat the flag "+
			"for several")
}

// values returns the mode, empty if none is requested, and the further addresses. Its errors are usage errors.
func (g *guardFlags) values() (mode api.GuardMode, allow []netip.Prefix, err error) {
	if mode, err = api.ParseGuardMode(g.mode); err != nil {
		return "", nil, hint.Refuse("--guard", "Choose pods, host or off.", "%s is unknown", usage.Quote(g.mode))
	}
	for _, text := range g.allow {
		p, err := api.ParseAllowed(text)
		if err != nil {
			return "", nil, hint.Refuse("--allow-address", "Write an address, or a prefix such as 10.32.5.0/24.",
				"%s is neither an address nor a prefix", usage.Quote(text))
		}
		allow = append(allow, p)
	}
	return mode, allow, nil
}

func newDetachCommand(e *env) *cobra.Command {
	n := &namespaceFlags{}
	cmd := &cobra.Command{
		Use:                   "detach (--netns PATH | --pid N | --container NAME)",
		DisableFlagsInUseLine: true,
		Short:                 "Remove a network namespace from the overlay and release its leases",
		Long: "Remove a network namespace from the overlay and release its leases. Use the same --netns, --pid or --container,\n" +
			"--ifname and --owner as for \"weft attach\". With --netns and --pid this works also when the namespace no longer\n" +
			"exists; the leases of a container that has stopped end by themselves.",
		Args: usage.None(namespaceFix),
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, _, err := n.request(cmd.Context())
			if err != nil {
				return err
			}
			return e.client().Detach(cmd.Context(), r)
		},
	}
	n.add(cmd)
	completeFlag(cmd, "netns", e.complete(namespaces))
	return cmd
}

// inwardModes are the values of --inward.
var inwardModes = []string{string(api.InwardNAT), string(api.InwardKeep), string(api.InwardOff)}

func newExposeCommand(e *env) *cobra.Command {
	inward := ""
	cmd := &cobra.Command{
		Use:   "expose [CIDR|auto] [flags]",
		Short: "Assign an overlay address to the host, and let clients outside reach pods through it",
		Long: "Assign an overlay address to the host, on the bridge, and print it. The address is CIDR, or the next free\n" +
			"address of each range. The first pod on the node does the same, because pods use this address as their\n" +
			"gateway. The address is kept over restarts and reboots, with its prefix length. A CIDR is added to the\n" +
			"addresses that the host has; \"weft hide\" removes all of them.\n\n" +
			"With --inward, hosts outside of the overlay reach pods of any node through this one: by a route to the range\n" +
			"of the overlay, or by DNAT. Answers come back the same way. Pods see the address of this host, or with\n" +
			"--inward=keep that of the client. It lasts over restarts, until --inward=off or \"weft hide\".",
		Example: "  weft expose\n  weft expose 10.32.5.1/12\n  weft expose --inward=keep",
		Args:    usage.Arguments(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			mode, err := api.ParseInwardMode(inward)
			if err != nil {
				return hint.Refuse("--inward", "Choose nat, keep or off.", "%s is unknown", usage.Quote(inward))
			}
			r := api.ExposeRequest{CIDR: api.Auto, Inward: mode}
			switch {
			case len(args) == 1:
				r.CIDR = args[0]
			case mode == api.InwardOff:
				r.CIDR = "" // the host need not get an address
			}
			leases, err := e.expose(cmd.Context(), r)
			return e.printLeases(leases, err)
		},
	}
	cmd.Flags().StringVar(&inward, "inward", "", "what hosts outside reach through this one: nat (pods, which see this host's address), keep "+
		"(pods, which see the client's address) or off; nat without a `mode`")
	cmd.Flags().Lookup("inward").NoOptDefVal = string(api.InwardNAT)
	completeFlag(cmd, "inward", cobra.FixedCompletions(inwardModes, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// expose gives the bridge an address, and names the pods that have another gateway from now on.
func (e *env) expose(ctx context.Context, r api.ExposeRequest) ([]api.Lease, error) {
	exposed, err := e.client().Expose(ctx, r)
	leases := make([]api.Lease, 0, len(exposed))
	for _, l := range exposed {
		leases = append(leases, l.Lease)
		if len(l.Moved) > 0 {
			_, _ = fmt.Fprintf(e.stderr, "%s is now the gateway of %s. Change the name server in their resolv.conf, too.\n", l.IP.Addr(),
				strings.Join(l.Moved, ", "))
		}
	}
	return leases, err
}

func newHideCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "hide",
		Short: "Remove the host's overlay address",
		Long: "Remove the host's overlay address. Pods of this node use it as their gateway and name server: they reach\n" +
			"nothing outside the overlay until \"weft expose\" or the next pod gives it back. It stays reserved for them.\n" +
			"The command names these pods.",
		Args: usage.Arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			hidden, err := e.client().Hide(cmd.Context())
			if len(hidden.Pods) > 0 {
				cmd.PrintErrf("Without a gateway and a name server until \"weft expose\": %s.\n", strings.Join(hidden.Pods, ", "))
			}
			return err
		},
	}
}
