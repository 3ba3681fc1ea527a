package main

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"weft/internal/api"
)

// namespaceFlags name a network namespace and an interface in it.
type namespaceFlags struct {
	netns  string
	pid    int
	ifname string
	owner  string
}

func (n *namespaceFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&n.netns, "netns", "", "`path` of the network namespace, such as /run/netns/NAME")
	cmd.Flags().IntVar(&n.pid, "pid", 0, "`process` in the network namespace")
	cmd.Flags().StringVar(&n.ifname, "ifname", "eth0", "`interface` inside the namespace")
	cmd.Flags().StringVar(&n.owner, "owner", "", "`owner` of the addresses (default: made from the namespace and the interface)")
}

// request returns what the flags say, with the namespace as an absolute path.
func (n *namespaceFlags) request() (api.AttachRequest, error) {
	path := n.netns
	switch {
	case (n.netns == "") == (n.pid == 0):
		return api.AttachRequest{}, &usageError{errors.New("one of --netns and --pid is needed"), "Name the namespace by its path, or a process in it."}
	case n.pid < 0:
		return api.AttachRequest{}, &usageError{fmt.Errorf("--pid: %d is no process", n.pid), "Give the number of a running process."}
	case n.pid > 0:
		path = fmt.Sprintf("/proc/%d/ns/net", n.pid)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return api.AttachRequest{}, &usageError{fmt.Errorf("--netns: %w", err), "Give an absolute path."}
	}
	return api.AttachRequest{Netns: abs, Ifname: n.ifname, Owner: n.owner}, nil
}

func newAttachCommand(e *env) *cobra.Command {
	n, ips, hostname := &namespaceFlags{}, []string(nil), ""
	cmd := &cobra.Command{
		Use:   "attach (--netns PATH | --pid N) [flags]",
		Short: "Join a network namespace to the overlay and print its addresses",
		Long: "Join a network namespace to the overlay and print its addresses, one a line. It gets an interface with an\n" +
			"address of each range and a default route through this host. Doing it again changes nothing and prints the\n" +
			"same addresses.",
		Example: "  weft attach --netns /run/netns/p --hostname web\n  weft attach --pid 4711 --ip 10.32.5.1/12",
		Args:    between(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := n.request()
			if err != nil {
				return err
			}
			r.IPs, r.Hostname = ips, hostname
			a, err := e.client().Attach(cmd.Context(), r)
			if err != nil {
				return err
			}
			for _, addr := range a.Addresses {
				_, _ = fmt.Fprintln(e.stdout, addr.Address)
			}
			return nil
		},
	}
	n.add(cmd)
	cmd.Flags().StringVar(&hostname, "hostname", "", "`name` for the addresses in .weft.local, until it is detached")
	cmd.Flags().StringSliceVar(&ips, "ip", nil, "auto for an `address` of each range, or one as IP or IP/LEN; repeat it for several (default auto)")
	return cmd
}

func newDetachCommand(e *env) *cobra.Command {
	n := &namespaceFlags{}
	cmd := &cobra.Command{
		Use:                   "detach (--netns PATH | --pid N)",
		DisableFlagsInUseLine: true,
		Short:                 "Take a network namespace out of the overlay and end its leases",
		Long: "Take a network namespace out of the overlay and end its leases, also when the namespace is gone already. Name\n" +
			"it as it was named to \"weft attach\".",
		Args: between(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := n.request()
			if err != nil {
				return err
			}
			return e.client().Detach(cmd.Context(), r)
		},
	}
	n.add(cmd)
	return cmd
}

func newExposeCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "expose [CIDR|auto]",
		Short: "Give the host an address on the overlay",
		Long: "Give the host an address on the overlay, on the bridge, and print it: CIDR, or of each range the next that is\n" +
			"free. The first pod has this done as well, as its route leads there. It is kept over restarts and reboots.",
		Example: "  weft expose\n  weft expose 10.32.5.1/12",
		Args:    between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cidr := api.Auto
			if len(args) == 1 {
				cidr = args[0]
			}
			leases, err := e.client().Expose(cmd.Context(), cidr)
			return e.printLeases(leases, err)
		},
	}
}

func newHideCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "hide",
		Short: "Take the host's address on the overlay away",
		Long: "Take the host's address on the overlay away. Pods of this node have it as their gateway: they reach nothing\n" +
			"outside of the overlay until it is back, by \"weft expose\" or with the next pod.",
		Args: between(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return e.client().Hide(cmd.Context()) },
	}
}
