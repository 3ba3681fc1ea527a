package main

import (
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"weft/internal/usage"
)

func newFDBCommand(e *env) *cobra.Command {
	return e.addJSONFlag(&cobra.Command{
		Use:   "fdb",
		Short: "Show the learned MAC addresses",
		Long: "Show the learned MAC addresses, with the node behind which each of them is and the time since it was last\n" +
			"seen. The list includes addresses that the kernel learned from the peers on the kernel path.",
		Args: usage.Arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			entries, err := e.client().FDB(cmd.Context())
			if err != nil {
				return err
			}
			return e.show(entries, func(w io.Writer) {
				rows := make([][]string, 0, len(entries))
				for _, f := range entries {
					where := "this node"
					if !f.Peer.IsZero() {
						where = fmt.Sprintf("%s (%s)", f.Name, f.Peer)
					}
					rows = append(rows, []string{f.MAC.String(), where, fmt.Sprintf("%.0f s", f.Age)})
				}
				table(w, []string{"MAC", "BEHIND", "AGE"}, rows)
			})
		},
	})
}

func newRoutesCommand(e *env) *cobra.Command {
	return e.addJSONFlag(&cobra.Command{
		Use:   "routes",
		Short: "Show the next hop to each peer",
		Long: "Show the next hop to each peer. VIA is the peer itself, or the relay that receives its frames first. HOPS is\n" +
			"the number of links on the path.",
		Args: usage.Arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			routes, err := e.client().Routes(cmd.Context())
			if err != nil {
				return err
			}
			return e.show(routes, func(w io.Writer) {
				rows := make([][]string, 0, len(routes))
				for _, r := range routes {
					rows = append(rows, []string{r.Peer.String(), r.Name, r.Via.String(), r.Addr.String(), strconv.Itoa(r.Hops)})
				}
				table(w, []string{"PEER", "NAME", "VIA", "ADDRESS", "HOPS"}, rows)
			})
		},
	})
}

func newVersionCommand(e *env) *cobra.Command {
	return e.addJSONFlag(&cobra.Command{
		Use:   "version",
		Short: "Show the version",
		Args:  usage.Arguments(0, 0),
		RunE: func(*cobra.Command, []string) error {
			v := buildVersion()
			return e.show(map[string]string{"version": v}, func(w io.Writer) { _, _ = fmt.Fprintln(w, "weft", v) })
		},
	})
}
