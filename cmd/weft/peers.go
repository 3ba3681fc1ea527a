package main

import (
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"weft/internal/api"
)

func newPeersCommand(e *env) *cobra.Command {
	return e.addJSONFlag(&cobra.Command{
		Use:   "peers",
		Short: "Show a row for each node of the network",
		Long: "Show a row for each node of the network, this one among them. STATE is alive, dead (it went without a word) or\n" +
			"left. LINK is direct, relay (over another node) or none; DATAPATH is who carries the frames to it, userspace\n" +
			"or kernel; CIPHER is - where they are not encrypted. MTU is the largest packet of a pod that gets there, RTT\n" +
			"the round trip to it as probes measured it.",
		Args: between(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			peers, err := e.client().Peers(cmd.Context())
			if err != nil {
				return err
			}
			return e.show(peers, func(w io.Writer) { writePeers(w, peers) })
		},
	})
}

func writePeers(w io.Writer, peers []api.Peer) {
	rows := make([][]string, 0, len(peers))
	for _, p := range peers {
		name := p.Name
		if p.Self {
			name += " (this node)"
		}
		rtt := "-"
		if p.RTT > 0 {
			rtt = strconv.FormatFloat(p.RTT, 'f', 2, 64) + " ms"
		}
		rows = append(rows, []string{
			p.ID.String(), name, p.Addr.String(), string(p.State), string(p.Link), orDash(string(p.Datapath)), orDash(string(p.Cipher)), strconv.Itoa(p.MTU), rtt,
			byteCount(p.TxBytes), byteCount(p.RxBytes),
		})
	}
	table(w, []string{"ID", "NAME", "ADDRESS", "STATE", "LINK", "DATAPATH", "CIPHER", "MTU", "RTT", "SENT", "RECEIVED"}, rows)
}

func newConnectCommand(e *env) *cobra.Command {
	var replace bool
	cmd := &cobra.Command{
		Use:                   "connect [--replace] PEER...",
		DisableFlagsInUseLine: true,
		Short:                 "Add peers to dial for ever; they are remembered over restarts",
		Long: "Add peers to dial for ever; they are remembered over restarts. PEER is HOST or HOST:PORT, an IPv6 address\n" +
			"stands in brackets. Names are resolved again at every attempt. One member is enough: it tells of all others.",
		Example: "  weft connect host1 [2001:db8::2]:6783",
		Args:    between(1, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.client().Connect(cmd.Context(), args, replace)
		},
	}
	cmd.Flags().BoolVar(&replace, "replace", false, "forget all other peers that were connected")
	return cmd
}

func newForgetCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "forget PEER...",
		Short: "Stop dialling peers; those that are members stay members",
		Long: "Stop dialling peers, written as \"weft status\" shows them; those that are members stay members. To take a node\n" +
			"out of the network run \"weft leave\" on it, or \"weft reclaim\" elsewhere when it is gone for good.",
		Args: between(1, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.client().Forget(cmd.Context(), args)
		},
	}
}

func newLeaveCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "leave",
		Short: "Give this node's address space to the others, tell them, and stop the daemon",
		Long: "Give this node's address space to the others, tell them, and stop the daemon. All leases of this node end and\n" +
			"its pods are taken off the overlay. It is refused where there are other nodes and none of them can be reached.\n" +
			"To stop a node that is to come back, stop the daemon (SIGTERM) instead: bridge, pods and addresses stay.",
		Args: between(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := e.client().Leave(cmd.Context())
			if err != nil {
				return err
			}
			if r.GivenTo.IsZero() {
				_, _ = fmt.Fprintf(e.stdout, "left; %d leases ended, nobody was there to take the address space\n", r.Released)
				return nil
			}
			_, _ = fmt.Fprintf(e.stdout, "left; %d leases ended, the address space went to %s (%s)\n", r.Released, r.Name, r.GivenTo)
			return nil
		},
	}
}
