package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"weft/internal/api"
	"weft/internal/hint"
	"weft/internal/suggest"
	"weft/internal/usage"
)

func newIPAMCommand(e *env) *cobra.Command {
	return e.addJSONFlag(&cobra.Command{
		Use:   "ipam",
		Short: "Show how the address range is divided among the nodes",
		Long: "Show how the address range is divided among the nodes. While this node cannot lease addresses, the output also\n" +
			"shows what it waits for. FREE is the number of addresses that an owner has left: exact for this node, for\n" +
			"others as they last reported. Free addresses of nodes that are not REACHABLE cannot be leased meanwhile.",
		Args: usage.Arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			i, err := e.client().IPAM(cmd.Context())
			if err != nil {
				return err
			}
			return e.show(i, func(w io.Writer) { writeIPAM(w, i) })
		},
	})
}

func writeIPAM(w io.Writer, i api.IPAM) {
	_, _ = fmt.Fprintf(w, "State: %s", i.State)
	if i.WaitingFor != "" {
		_, _ = fmt.Fprintf(w, ", %s", i.WaitingFor)
	}
	_, _ = fmt.Fprintln(w)
	for _, r := range i.Ranges {
		var total uint64
		for _, o := range r.Owners {
			total += o.Addresses
		}
		rows := make([][]string, 0, len(r.Owners))
		for _, o := range r.Owners {
			rows = append(rows, []string{
				o.ID.String(), o.Name, strconv.FormatUint(o.Addresses, 10),
				fmt.Sprintf("%.1f %%", 100*float64(o.Addresses)/float64(total)), strconv.FormatUint(o.Free, 10), yesNo(o.Reachable),
			})
		}
		_, _ = fmt.Fprintf(w, "\n%s\n", r.CIDR)
		table(w, []string{"OWNER", "NAME", "ADDRESSES", "SHARE", "FREE", "REACHABLE"}, rows)
	}
}

func newIPCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ip",
		Short: "Lease addresses to owners",
		Long: "Lease addresses to owners. An owner is any name; \"weft attach\" and the CNI plugin use names of their own. A\n" +
			"lease made here stays until \"weft ip release\": unlike the lease of an attachment, it does not end when an\n" +
			"interface disappears. These commands show and change the leases of this node only.",
	}
	cmd.AddCommand(newIPAllocateCommand(e), newIPClaimCommand(e), newIPReleaseCommand(e), newIPLookupCommand(e), newIPListCommand(e))
	return cmd
}

func newIPAllocateCommand(e *env) *cobra.Command {
	var in string
	cmd := &cobra.Command{
		Use:                   "allocate OWNER [--in CIDR]",
		DisableFlagsInUseLine: true,
		Short:                 "Lease an address of each range, or one in CIDR; repeatable for the same owner",
		Long: "Lease an address of each range, or one in CIDR, and print the addresses. A repeated call for the same owner\n" +
			"returns the same addresses.",
		Args: usage.Arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r := api.AddressRequest{Owner: args[0]}
			if in != "" {
				p, err := netip.ParsePrefix(in)
				if err != nil {
					return hint.Refuse("--in", "Use a part of the range, such as 10.32.5.0/24.", "%q is not a CIDR", in)
				}
				r.In = p
			}
			leases, err := e.client().Allocate(cmd.Context(), r)
			return e.printLeases(leases, err)
		},
	}
	cmd.Flags().StringVar(&in, "in", "", "lease an address in this part of the range (`CIDR`), such as 10.32.5.0/24")
	return cmd
}

func newIPClaimCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "claim OWNER IP",
		Short: "Lease a given address",
		Long: "Lease a given address. If another node owns the address, this node requests it from that node. The command\n" +
			"fails if the address is in use, or if its owner cannot be reached.",
		Args: usage.Arguments(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			ip, err := parseIP(args[1])
			if err != nil {
				return err
			}
			leases, err := e.client().Allocate(cmd.Context(), api.AddressRequest{Owner: args[0], IP: ip})
			return e.printLeases(leases, err)
		},
	}
}

func newIPReleaseCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:               "release OWNER [IP]",
		Short:             "Release all leases of an owner, or one of them",
		Args:              usage.Arguments(1, 2),
		ValidArgsFunction: e.completeFirst(leaseOwners),
		RunE: func(cmd *cobra.Command, args []string) error {
			ip := ""
			if len(args) == 2 {
				a, err := parseIP(args[1])
				if err != nil {
					return err
				}
				ip = a.String()
			}
			return e.client().Release(cmd.Context(), args[0], ip)
		},
	}
}

func newIPLookupCommand(e *env) *cobra.Command {
	return e.addJSONFlag(&cobra.Command{
		Use:               "lookup OWNER",
		Short:             "Show the addresses of an owner",
		Args:              usage.Arguments(1, 1),
		ValidArgsFunction: e.completeFirst(leaseOwners),
		RunE: func(cmd *cobra.Command, args []string) error {
			leases, err := e.client().Leases(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if len(leases) == 0 {
				return e.noLease(cmd.Context(), args[0])
			}
			return e.show(leases, func(io.Writer) { _ = e.printLeases(leases, nil) })
		},
	})
}

func newIPListCommand(e *env) *cobra.Command {
	return e.addJSONFlag(&cobra.Command{
		Use:   "list",
		Short: "Show all leases of this node",
		Args:  usage.Arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			leases, err := e.client().Leases(cmd.Context(), "")
			if err != nil {
				return err
			}
			return e.show(leases, func(w io.Writer) {
				rows := make([][]string, 0, len(leases))
				for _, l := range leases {
					rows = append(rows, []string{l.IP.String(), l.Owner, l.Since.Local().Format(time.RFC3339)})
				}
				table(w, []string{"ADDRESS", "OWNER", "SINCE"}, rows)
			})
		},
	})
}

// printLeases prints one address per line and returns err.
func (e *env) printLeases(leases []api.Lease, err error) error {
	for _, l := range leases {
		_, _ = fmt.Fprintln(e.stdout, l.IP)
	}
	return err
}

// noLease is the error about an owner without a lease.
func (e *env) noLease(ctx context.Context, owner string) error {
	advice := "\"weft ip list\" shows the owners."
	owners, _ := leaseOwners(ctx, e.client()) // without them there is no suggestion
	if near, ok := suggest.Nearest(owner, owners); ok {
		advice = fmt.Sprintf("Did you mean %s? ", near) + advice
	}
	return hint.New(hint.NotFound, advice, "%q has no address on this node", owner)
}

// parseIP parses an address, also in the form with a prefix length in which "weft attach" prints it. The error is a usage error.
func parseIP(text string) (netip.Addr, error) {
	if p, err := netip.ParsePrefix(text); err == nil {
		return p.Addr(), nil
	}
	ip, err := netip.ParseAddr(text)
	if err != nil {
		return ip, hint.New(hint.Usage, "Use an address of the overlay, such as 10.32.0.1.", "%s is not an IP address", usage.Quote(text))
	}
	return ip, nil
}
