package main

import (
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"
)

func newFDBCommand(e *env) *cobra.Command {
	return e.addJSONFlag(&cobra.Command{
		Use:   "fdb",
		Short: "Show the learned MAC addresses",
		Long: "Show the learned MAC addresses: behind which node each of them is, and for how long it has not been seen. What\n" +
			"the kernel has learned of the peers that it carries is among them.",
		Args: between(0, 0),
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
		Long: "Show the next hop to each peer: VIA is the peer itself, or the relay that its frames go to first, and HOPS how\n" +
			"many links there are on the way.",
		Args: between(0, 0),
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
		Args:  between(0, 0),
		RunE: func(*cobra.Command, []string) error {
			v := buildVersion()
			return e.show(map[string]string{"version": v}, func(w io.Writer) { _, _ = fmt.Fprintln(w, "weft", v) })
		},
	})
}
