package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"weft/internal/api"
	"weft/internal/hint"
	"weft/internal/suggest"
	"weft/internal/usage"
)

func newDNSCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dns",
		Short: "Manage the names of the overlay",
		Long: "Manage the names of the overlay. They are below the --dns-domain of \"weft up\", by default weft.local. Every\n" +
			"node answers queries for the names of all live nodes, on the address of its bridge, UDP and TCP port 53. It\n" +
			"forwards all other queries to the host's resolvers. \"weft attach --hostname\" adds a name for the addresses that\n" +
			"it attaches.",
	}
	cmd.AddCommand(newDNSAddCommand(e), newDNSRemoveCommand(e), newDNSLookupCommand(e), newDNSListCommand(e),
		newDNSResolvedCommand(e), newDNSAddressCommand(e))
	return cmd
}

func newDNSAddCommand(e *env) *cobra.Command {
	external := false
	cmd := &cobra.Command{
		Use:   "add NAME IP...",
		Short: "Add a name for addresses of the overlay, or of other hosts; answers rotate several addresses",
		Long: "Add a name for addresses of the overlay, which this node answers until \"weft dns remove\". With --external, the\n" +
			"addresses may be of any host that pods reach, such as a database beside the overlay. Reverse lookups of such an\n" +
			"address are left to the host's resolvers.",
		Example: "  weft dns add db 10.32.5.1 10.40.0.7\n  weft dns add --external billing 192.0.2.7",
		Args:    usage.Arguments(2, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := nameRequest(args)
			if err != nil {
				return err
			}
			r.External = external
			return e.client().AddName(cmd.Context(), r)
		},
	}
	cmd.Flags().BoolVar(&external, "external", false, "allow addresses outside the ranges of the overlay")
	return cmd
}

func newDNSRemoveCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:               "remove NAME [IP...]",
		Short:             "Remove a name that this node added, from the given addresses or from all",
		Args:              usage.Arguments(1, -1),
		ValidArgsFunction: e.completeFirst(dnsNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := nameRequest(args)
			if err != nil {
				return err
			}
			return e.client().RemoveName(cmd.Context(), r)
		},
	}
}

// nameRequest parses the arguments NAME IP...
func nameRequest(args []string) (api.NameRequest, error) {
	r := api.NameRequest{Name: args[0]}
	for _, s := range args[1:] {
		ip, err := parseIP(s)
		if err != nil {
			return r, err
		}
		r.IPs = append(r.IPs, ip)
	}
	return r, nil
}

func newDNSLookupCommand(e *env) *cobra.Command {
	return e.addJSONFlag(&cobra.Command{
		Use:               "lookup NAME|IP",
		Short:             "Show the addresses of a name, or the names of an address",
		Args:              usage.Arguments(1, 1),
		ValidArgsFunction: e.completeFirst(dnsNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			ip, err := parseIP(args[0])
			name := args[0]
			if err == nil {
				name = ""
			}
			names, err := e.client().Names(cmd.Context(), name, ip)
			if err != nil {
				return err
			}
			if err := e.show(names, func(w io.Writer) {
				for _, n := range names {
					if name == "" {
						_, _ = fmt.Fprintln(w, n.Name)
					} else {
						_, _ = fmt.Fprintln(w, n.IP)
					}
				}
			}); err != nil {
				return err
			}
			if len(names) == 0 {
				return e.noName(cmd.Context(), args[0])
			}
			return nil
		},
	})
}

func newDNSListCommand(e *env) *cobra.Command {
	return e.addJSONFlag(&cobra.Command{
		Use:   "list",
		Short: "Show all names, including names of nodes that are not alive, which get no answer",
		Args:  usage.Arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			names, err := e.client().Names(cmd.Context(), "", netip.Addr{})
			if err != nil {
				return err
			}
			return e.show(names, func(w io.Writer) {
				rows := make([][]string, 0, len(names))
				for _, n := range names {
					rows = append(rows, []string{n.Name, n.IP.String(), n.NodeName, nameSource(n), yesNo(n.Answered), orDash(n.Owner)})
				}
				table(w, []string{"NAME", "ADDRESS", "NODE", "SOURCE", "ANSWERED", "OWNER"}, rows)
			})
		},
	})
}

func newDNSResolvedCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "resolved",
		Short: "Print the command that makes systemd-resolved of this host ask this node for names",
		Long: "Print the command that makes systemd-resolved of this host ask this node for the names of the overlay, and for no\n" +
			"others. It lasts until the bridge is removed, as by a reboot. A host that has no address on the overlay gets one, as by\n" +
			"\"weft expose\".",
		Example: "  weft dns resolved | sh",
		Args:    usage.Arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, addrs, err := e.nameServers(cmd.Context())
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(e.stdout, "resolvectl dns %[1]s %[2]s && resolvectl domain %[1]s '~%[3]s'\n",
				s.Bridge, strings.Join(addrs, " "), s.DNSDomain)
			return err
		},
	}
}

func newDNSAddressCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "address",
		Short: "Print the address at which this node answers queries, such as for \"docker run --dns\"",
		Long: "Print the address at which this node answers queries for names, of IPv4 if it has one. A host that has no address on\n" +
			"the overlay gets one, as by \"weft expose\".",
		Example: "  docker run --dns $(weft dns address) --dns-search weft.local ...",
		Args:    usage.Arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, addrs, err := e.nameServers(cmd.Context())
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(e.stdout, addrs[0])
			return err
		},
	}
}

// nameServers returns the addresses at which the node answers queries for names, at least one, those of IPv4 first. A host without an
// address gets one: its first container needs it on its command line, and the address otherwise comes with the first container.
func (e *env) nameServers(ctx context.Context) (s api.Status, addrs []string, err error) {
	if s, err = e.client().Status(ctx); err != nil {
		return s, nil, err
	}
	if !s.DNS {
		return s, nil, hint.New(hint.Refused, "Start it without --no-dns.", "this node does not answer queries")
	}
	if len(s.Exposed) == 0 {
		leases, err := e.expose(ctx, api.ExposeRequest{CIDR: api.Auto})
		if err != nil {
			return s, nil, err
		}
		for _, l := range leases {
			s.Exposed = append(s.Exposed, l.IP)
		}
	}
	for _, four := range []bool{true, false} {
		for _, p := range s.Exposed {
			if p.Addr().Is4() == four {
				addrs = append(addrs, p.Addr().String())
			}
		}
	}
	return s, addrs, nil
}

// nameSource returns where a name comes from, for people.
func nameSource(n api.Name) string {
	switch n.Source {
	case api.NameFromAttach:
		return "weft attach"
	case api.NameFromContainer:
		return "container (CNI)"
	case api.NameFromDocker:
		return "Docker"
	case api.NameFromOwner:
		return "lease"
	case api.NameFromAdd:
		return "weft dns add"
	case api.NameFromNode:
		return "node " + n.NodeName
	default: // of a daemon of another version
		return orDash(string(n.Source))
	}
}

// noName is the error about a name or address that no query is answered for. A name of a node that is not alive is one of them.
func (e *env) noName(ctx context.Context, text string) error {
	const list = "\"weft dns list\" shows all names."
	all, err := e.client().Names(ctx, "", netip.Addr{})
	if err != nil {
		return err
	}
	if ip, err := parseIP(text); err == nil {
		return hint.New(hint.NotFound, list, "no name has the address %s", ip)
	}
	name := strings.ToLower(strings.TrimSuffix(text, "."))
	if s, err := e.client().Status(ctx); err == nil {
		name = strings.TrimSuffix(name, "."+s.DNSDomain)
	}
	var known []string
	for _, n := range all {
		if n.Name == name {
			return hint.New(hint.NotFound, "Queries are answered again when that node is back: \"weft peers\" shows it.",
				"%q is a name of node %s, which is not alive", text, n.NodeName)
		}
		known = append(known, n.Name)
	}
	advice := list
	if near, ok := suggest.Nearest(name, known); ok {
		advice = fmt.Sprintf("Did you mean %s? ", near) + list
	}
	return hint.New(hint.NotFound, advice, "no node has added the name %q", text)
}
