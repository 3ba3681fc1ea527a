package main

import (
	"context"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"weft/internal/api"
	"weft/internal/settings"
)

// The functions of this file complete values in a shell. They ask the node that runs, and complete nothing if none answers.

// completeTime bounds how long the shell waits for values.
const completeTime = 2 * time.Second

// values returns the values that a completion chooses from. An error means none.
type values func(ctx context.Context, client *api.Client) ([]string, error)

// complete returns a function of cobra that completes with values, without those that are arguments already.
func (e *env) complete(v values) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completeTime)
		defer cancel()
		all, err := v(ctx, api.NewClient(e.socket))
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		slices.Sort(all)
		all = slices.DeleteFunc(slices.Compact(all), func(s string) bool { return s == "" || slices.Contains(args, s) })
		return all, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeFirst is complete for the first argument only.
func (e *env) completeFirst(v values) cobra.CompletionFunc {
	all := e.complete(v)
	return func(cmd *cobra.Command, args []string, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return all(cmd, args, prefix)
	}
}

// completeFlag makes a shell complete the values of a flag.
func completeFlag(cmd *cobra.Command, flag string, f cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, f); err != nil {
		panic(err) // the flag does not exist, which every start would show
	}
}

// completeModes makes a shell complete the flags of a node that have a fixed list of values.
func completeModes(cmd *cobra.Command) {
	for flag, list := range settings.Modes() {
		completeFlag(cmd, flag, cobra.FixedCompletions(list, cobra.ShellCompDirectiveNoFileComp))
	}
	completeFlag(cmd, "log-level", cobra.FixedCompletions([]string{"debug", "info", "warn", "error"}, cobra.ShellCompDirectiveNoFileComp))
	completeFlag(cmd, "log-format", cobra.FixedCompletions([]string{logText, logJSON}, cobra.ShellCompDirectiveNoFileComp))
}

// otherNodes are the names of the other nodes.
func otherNodes(ctx context.Context, client *api.Client) (names []string, err error) {
	peers, err := client.Peers(ctx)
	for _, p := range peers {
		if !p.Self {
			names = append(names, p.Name)
		}
	}
	return names, err
}

// deadNodes are the names of nodes that are dead.
func deadNodes(ctx context.Context, client *api.Client) (names []string, err error) {
	peers, err := client.Peers(ctx)
	for _, p := range peers {
		if p.State == api.PeerDead {
			names = append(names, p.Name)
		}
	}
	return names, err
}

// targets are the targets of the node.
func targets(ctx context.Context, client *api.Client) (list []string, err error) {
	s, err := client.Status(ctx)
	for _, t := range s.Targets {
		list = append(list, t.Addr)
	}
	return list, err
}

// dnsNames are the names in the overlay.
func dnsNames(ctx context.Context, client *api.Client) (list []string, err error) {
	names, err := client.Names(ctx, "", netip.Addr{})
	for _, n := range names {
		list = append(list, n.Name)
	}
	return list, err
}

// leaseOwners are the owners of leases of the node.
func leaseOwners(ctx context.Context, client *api.Client) (list []string, err error) {
	leases, err := client.Leases(ctx, "")
	for _, l := range leases {
		list = append(list, l.Owner)
	}
	return list, err
}

// namespaces are the names of network namespaces of "ip netns".
func namespaces(context.Context, *api.Client) (names []string, err error) {
	entries, err := os.ReadDir(netnsDir)
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names, err
}
