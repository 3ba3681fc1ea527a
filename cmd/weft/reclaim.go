package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"weft/internal/api"
	"weft/internal/plural"
	"weft/internal/printable"
	"weft/internal/usage"
)

func newReclaimCommand(e *env) *cobra.Command {
	return e.addJSONFlag(&cobra.Command{
		Use:   "reclaim PEER...",
		Short: "Take over the address space of nodes that are permanently dead",
		Long: "Take over the address space of nodes that are permanently dead. PEER is an ID or a nickname. All other nodes\n" +
			"that own addresses must agree, so name all permanently dead nodes in one command. A reclaimed node that comes\n" +
			"back learns that it was reclaimed, drops its leases and gets a new share.",
		Args:              usage.Arguments(1, -1),
		ValidArgsFunction: e.complete(deadNodes),
		RunE: func(cmd *cobra.Command, args []string) error {
			results, err := e.client().Reclaim(cmd.Context(), args)
			if err != nil {
				return err
			}
			return e.show(results, func(w io.Writer) { writeReclaimed(w, results) })
		},
	})
}

func writeReclaimed(w io.Writer, results []api.Reclaimed) {
	for _, r := range results {
		name := r.Peer.String()
		if r.Name != "" {
			name = fmt.Sprintf("%s (%s)", printable.Text(r.Name), r.Peer)
		}
		if r.Addresses == 0 {
			_, _ = fmt.Fprintf(w, "%s: %s owns no addresses any more: run \"weft ipam\" to see the owners\n", r.Range, name)
			continue
		}
		_, _ = fmt.Fprintf(w, "%s: %s of %s now %s to %s (%s)\n", r.Range, plural.Count(r.Addresses, "address"), name,
			plural.Verb(r.Addresses, "belongs", "belong"),
			printable.Text(r.GivenToName), r.GivenTo)
	}
}
