package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"weft/internal/api"
	"weft/internal/plural"
	"weft/internal/printable"
	"weft/internal/usage"
)

func newPeersCommand(e *env) *cobra.Command {
	var problems bool
	cmd := e.addJSONFlag(&cobra.Command{
		Use:   "peers",
		Short: "Show the nodes of the network",
		Long: "Show the nodes of the network, one per row, including this node. STATE is alive, dead (it stopped without\n" +
			"leaving) or left. LINK is direct, relay (through another node) or none. CARRIER is what carries the frames to\n" +
			"the node: userspace, or of the kernel vxlan, wireguard or direct (packets without a header; other frames go by\n" +
			"vxlan or userspace). CIPHER is - if the frames are not encrypted. MTU is the largest packet of a pod that reaches\n" +
			"the node. RTT is the round-trip time that probes measured. SENT and RECEIVED count the bytes of frames. In a\n" +
			"network with identities, IDENTITY is certificate, - (admitted by the secret) or the reason why the node is shut\n" +
			"out.",
		Args: usage.Arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			peers, err := e.client().Peers(cmd.Context())
			if err != nil {
				return err
			}
			all := len(peers)
			if problems {
				peers = slices.DeleteFunc(peers, isWell)
			}
			return e.show(peers, func(w io.Writer) {
				writePeers(w, peers)
				if problems {
					_, _ = fmt.Fprintf(w, "%d of %s\n", len(peers), plural.Count(all, "node"))
				}
			})
		},
	})
	cmd.Flags().BoolVar(&problems, "problems", false, "show only nodes that are dead, shut out, not reached, or reached through a relay")
	return cmd
}

// isWell reports whether a node is alive and reached directly. One that has left is well, too.
func isWell(p api.Peer) bool {
	switch p.State {
	case api.PeerLeft:
		return true
	case api.PeerAlive:
		return p.Refused == "" && (p.Self || p.Link == api.LinkDirect)
	default:
		return false
	}
}

func writePeers(w io.Writer, peers []api.Peer) {
	header := []string{"ID", "NAME", "ADDRESS", "STATE", "LINK", "CARRIER", "CIPHER", "MTU", "RTT", "SENT", "RECEIVED"}
	identities := slices.ContainsFunc(peers, func(p api.Peer) bool { return p.Certificate || p.Refused != "" })
	if identities {
		header = append(header, "IDENTITY")
	}
	rows := make([][]string, 0, len(peers))
	for _, p := range peers {
		name, link := p.Name, string(p.Link)
		if p.Self {
			name, link = name+" (this node)", ""
		}
		rtt, mtu := "-", "-"
		if p.State == api.PeerAlive {
			mtu = strconv.Itoa(p.MTU)
		}
		if p.RTT > 0 {
			rtt = strconv.FormatFloat(p.RTT, 'f', 2, 64) + " ms"
		}
		row := []string{
			p.ID.String(), name, p.Addr.String(), string(p.State), orDash(link), orDash(string(p.Carrier)), orDash(string(p.Cipher)),
			mtu, rtt, byteCount(p.TxBytes), byteCount(p.RxBytes),
		}
		if identities {
			row = append(row, identityOf(p))
		}
		rows = append(rows, row)
	}
	table(w, header, rows)
}

// identityOf returns what admits a peer, or why it is not admitted.
func identityOf(p api.Peer) string {
	switch {
	case p.Refused != "":
		return p.Refused
	case p.Certificate:
		return "certificate"
	default:
		return "-"
	}
}

func newConnectCommand(e *env) *cobra.Command {
	var replace bool
	cmd := &cobra.Command{
		Use:                   "connect [--replace] PEER...",
		DisableFlagsInUseLine: true,
		Short:                 "Add peers to dial until they are removed; they are kept over restarts",
		Long: "Add peers to dial until \"weft forget\" removes them; they are kept over restarts. PEER is HOST or HOST:PORT,\n" +
			"with an IPv6 address in brackets. Names are resolved again at every attempt. One member is enough: the node\n" +
			"learns all others from it.",
		Example: "  weft connect host1 [2001:db8::2]:6783",
		Args:    usage.Arguments(1, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.client().Connect(cmd.Context(), args, replace)
		},
	}
	cmd.Flags().BoolVar(&replace, "replace", false, "forget all peers that were connected before")
	return cmd
}

func newForgetCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "forget PEER...",
		Short: "Stop dialing peers; members stay members",
		Long: "Stop dialing peers, written as \"weft status\" shows them. Peers that are members stay members. To remove a\n" +
			"node from the network, run \"weft leave\" on it, or \"weft reclaim\" on another node if it is permanently dead.",
		Args:              usage.Arguments(1, -1),
		ValidArgsFunction: e.complete(targets),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.client().Forget(cmd.Context(), args)
		},
	}
}

func newLeaveCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "leave",
		Short: "Leave the network: hand the node's address space to another node and stop the daemon",
		Long: "Leave the network: hand the node's address space to another node, announce the departure and stop the daemon.\n" +
			"All leases of this node end and its pods are removed from the overlay. The command fails if there are other\n" +
			"nodes and none of them can be reached. To stop a node only for a while, stop the daemon (SIGTERM) instead:\n" +
			"bridge, pods and addresses stay.",
		Args: usage.Arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := e.client().Leave(cmd.Context())
			if err != nil {
				return err
			}
			if r.GivenTo.IsZero() {
				_, _ = fmt.Fprintf(e.terminal(), "left; %s ended, no other node was there to receive the address space\n",
					plural.Count(r.Released, "lease"))
				return nil
			}
			_, _ = fmt.Fprintf(e.terminal(), "left; %s ended, the address space went to %s (%s)\n",
				plural.Count(r.Released, "lease"), printable.Text(r.Name), r.GivenTo)
			return nil
		},
	}
}
