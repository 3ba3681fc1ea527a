package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"weft/internal/api"
)

func newReclaimCommand(e *env) *cobra.Command {
	return e.addJSONFlag(&cobra.Command{
		Use:   "reclaim PEER...",
		Short: "Take the address space of nodes that are dead for good",
		Long: "Take the address space of nodes that are dead for good, each named by its ID or nickname. All other nodes that own\n" +
			"addresses have to agree; those that are dead for good as well are to be named too. A node that comes back all the same\n" +
			"learns of it, gives its leases up and gets a new share.",
		Args: between(1, -1),
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
			name = fmt.Sprintf("%s (%s)", r.Name, r.Peer)
		}
		if r.Addresses == 0 {
			_, _ = fmt.Fprintf(w, "%s: %s has nothing left: \"weft ipam\" shows who owns what\n", r.Range, name)
			continue
		}
		_, _ = fmt.Fprintf(w, "%s: %d addresses of %s are %s's now (%s)\n", r.Range, r.Addresses, name, r.GivenToName, r.GivenTo)
	}
}
