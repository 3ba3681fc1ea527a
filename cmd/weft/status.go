package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"weft/internal/api"
	"weft/internal/printable"
	"weft/internal/usage"
)

func newStatusCommand(e *env) *cobra.Command {
	return e.addJSONFlag(&cobra.Command{
		Use:   "status",
		Short: "Show an overview of the node",
		Long: "Show an overview of the node: whether a pod can join now, its peers and targets, datapath, encryption,\n" +
			"addresses, and dropped frames by reason. Each warning says how to fix the problem.",
		Args: usage.Arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := e.client().Status(cmd.Context())
			if err != nil {
				return err
			}
			return e.show(s, func(w io.Writer) { writeStatus(w, s) })
		},
	})
}

func writeStatus(w io.Writer, s api.Status) {
	line := func(name, format string, args ...any) {
		_, _ = fmt.Fprintf(w, "%12s  %s\n", name, printable.Text(fmt.Sprintf(format, args...)))
	}
	line("Node", "%s (%s), weft %s, up since %s", s.Name, s.ID, s.Version, s.Since.Local().Format("2006-01-02 15:04:05"))
	line("Ready", "%s", yesNo(s.Ready))
	line("Gossip", "%s", s.Advertise)
	line("Peers", "%s", counts(s.Peers))
	for _, t := range s.Targets {
		state := "reached"
		if t.Error != "" {
			state = "not reached: " + strings.Join(strings.Fields(t.Error), " ") // memberlist's errors have several lines
		}
		line("Target", "%s %s", t.Addr, state)
	}
	line("Datapath", "%s, %d queues, offload %s", s.Datapath, s.Queues, orDash(strings.Join(s.Offload, " ")))
	line("Bridge", "%s with %s, MTU %d, %d MACs learned", s.Bridge, s.Tap, s.MTU, s.FDB)
	line("Encryption", "%s", encryption(s))
	writeIdentity(line, s)
	line("Addresses", "%s, %s", s.IPAM, join(s.Range))
	if len(s.Exposed) > 0 {
		line("Exposed", "%s", join(s.Exposed))
	}
	if len(s.Drops) > 0 {
		line("Dropped", "%s", counts(s.Drops))
	}
	if s.Guard.Bound+s.Guard.Open > 0 || len(s.Guard.Dropped) > 0 {
		line("Guard", "%d ports bound, %d open; dropped: %s", s.Guard.Bound, s.Guard.Open, orDash(counts(s.Guard.Dropped)))
	}
	for _, warning := range s.Warnings {
		line("Warning", "%s", warning)
	}
}

// writeIdentity writes a line about what admits nodes, if it is not only a secret, and one for each CA.
func writeIdentity(line func(name, format string, args ...any), s api.Status) {
	if s.Identity == nil {
		return
	}
	admitted := "nodes with a certificate"
	if s.Network == api.NetworkBoth {
		admitted = "nodes with a certificate or the secret"
	}
	line("Admits", "%s; that of this node is valid until %s", admitted, s.Identity.Expires.Local().Format("2006-01-02 15:04:05"))
	for _, ca := range s.Identity.CAs {
		revoked := "no list of revoked nodes"
		if ca.ListVersion > 0 {
			revoked = fmt.Sprintf("version %d of the list of revoked nodes, with %d", ca.ListVersion, ca.Revoked)
		}
		line("CA", "%s, %s", ca.CA, revoked)
	}
}

// encryption describes whether traffic is encrypted, and the progress of a change of secrets.
func encryption(s api.Status) string {
	switch {
	case !s.Encrypted:
		return "off: anyone on the path between two nodes can read their traffic"
	case s.Droppable:
		return fmt.Sprintf("on, %d secrets; all nodes alive have the first: the others may be dropped", s.Secrets)
	case s.Network == api.NetworkIdentities:
		return "on, by identities"
	case s.Network == api.NetworkBoth:
		return "on, by identities and a secret; see \"Move from a secret to identities\" in docs/OPERATIONS.md"
	case s.Secrets > 1:
		return fmt.Sprintf("on, %d secrets; some nodes do not have the first yet", s.Secrets)
	default:
		return "on"
	}
}

// counts formats numbers by name, such as "3 alive, 1 dead", in alphabetical order of the names.
func counts[K ~string, N int | uint64](m map[K]N) string {
	parts := make([]string, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%d %s", m[k], k))
	}
	return orDash(strings.Join(parts, ", "))
}

func join[T fmt.Stringer](list []T) string {
	parts := make([]string, len(list))
	for i, v := range list {
		parts[i] = v.String()
	}
	return strings.Join(parts, " ")
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
