package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"weft/internal/api"
	"weft/internal/plural"
	"weft/internal/printable"
	"weft/internal/usage"
)

func newStatusCommand(e *env) *cobra.Command {
	var color string
	return addColorFlag(e.addJSONFlag(&cobra.Command{
		Use:   "status",
		Short: "Show an overview of the node",
		Long: "Show an overview of the node: whether a pod can join now, its peers and targets, datapath, encryption,\n" +
			"addresses, and dropped frames by reason. The conditions of the node come last, the most severe first: what is\n" +
			"wrong, how to fix it, and each command of that on a line of its own. On a terminal, text is wrapped and has\n" +
			"colors, unless NO_COLOR is set.",
		Args: usage.Arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := displayOf(e.stdout, color)
			if err != nil {
				return err
			}
			s, err := e.client().Status(cmd.Context())
			if err != nil {
				return err
			}
			return e.showStyled(s, func(w io.Writer) { writeStatus(w, s, d) })
		},
	}), &color)
}

// writeStatus writes a status. It makes text of other nodes printable itself, because its own text may have styles.
func writeStatus(w io.Writer, s api.Status, d display) {
	line := func(name, format string, args ...any) {
		writeField(w, d, name, plain, printable.Text(fmt.Sprintf(format, args...)))
	}
	line("Node", "%s (%s), weft %s, up since %s", s.Name, s.ID, s.Version, s.Since.Local().Format("2006-01-02 15:04:05"))
	if s.Ready {
		line("Ready", "yes")
	} else {
		writeField(w, d, "Ready", red, "no")
	}
	line("Gossip", "%s", s.Advertise)
	line("Peers", "%s", counts(s.Peers))
	writeTargets(line, s.Targets)
	line("Datapath", "%s, %s, offload %s", s.Datapath, plural.Count(s.Queues, "queue"), orDash(strings.Join(s.Offload, " ")))
	line("Bridge", "%s with %s, MTU %d, %s learned", s.Bridge, s.Tap, s.MTU, plural.Count(s.FDB, "MAC"))
	line("Encryption", "%s", encryption(s))
	writeIdentity(line, s)
	line("Addresses", "%s, %s", s.IPAM, join(s.Range))
	if len(s.Exposed) > 0 {
		line("Exposed", "%s%s", join(s.Exposed), inward[s.Inward])
	}
	switch {
	case s.DNSDomain == "": // a daemon of an older version
	case s.DNS:
		line("Names", "below %s, answered on port 53 of the bridge", s.DNSDomain)
	default:
		line("Names", "below %s, not answered (--no-dns)", s.DNSDomain)
	}
	if len(s.Drops) > 0 {
		line("Dropped", "%s", counts(s.Drops))
	}
	if s.Guard.Bound+s.Guard.Open > 0 || len(s.Guard.Dropped) > 0 {
		line("Guard", "%s bound, %d open; dropped: %s", plural.Count(s.Guard.Bound, "port"), s.Guard.Open, orDash(counts(s.Guard.Dropped)))
	}
	writeConditions(w, s.Conditions, d)
}

// fewTargets is the number of targets up to which each has a line, and the most that have one because they are not reached.
const fewTargets = 8

// writeTargets writes a line for each of few targets. Of many, such as all nodes of a large cluster, it writes those that are not reached.
func writeTargets(line func(name, format string, args ...any), targets []api.Target) {
	reached, shown := 0, 0
	for _, t := range targets {
		state := "reached"
		if t.Error == "" {
			reached++
		} else {
			state = "not reached: " + strings.Join(strings.Fields(t.Error), " ") // memberlist's errors have several lines
		}
		if len(targets) <= fewTargets || t.Error != "" && shown < fewTargets {
			line("Target", "%s %s", t.Addr, state)
			shown++
		}
	}
	if shown < len(targets) {
		line("Targets", "%d of %d reached", reached, len(targets))
	}
}

// fieldIndent is the column of the text of a field of a status.
const fieldIndent = 14

// writeField writes a field of a status: its name, and its printable text, wrapped with a hanging indent.
func writeField(w io.Writer, d display, name string, s style, text string) {
	_, _ = fmt.Fprintf(w, "%s%s  ", strings.Repeat(" ", max(fieldIndent-2-len(name), 0)), d.paint(bold, name))
	for i, line := range d.wrap(text, fieldIndent) {
		if i > 0 {
			_, _ = io.WriteString(w, strings.Repeat(" ", fieldIndent))
		}
		_, _ = fmt.Fprintln(w, d.paint(s, line))
	}
}

// mostAlike is the number of conditions of one code that are shown. In a large network, many nodes may be dead.
const mostAlike = 5

// writeConditions writes conditions, the most severe first. Each has a text, a remedy, and the commands of the remedy on lines of
// their own, which are not wrapped. Without a terminal, text and remedy are one line. Of many conditions with one code, the first are
// written.
func writeConditions(w io.Writer, list []api.Condition, d display) {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b api.Condition) int { return severityRank(b.Severity) - severityRank(a.Severity) })
	alike, shown := map[string]int{}, map[string]int{}
	for _, c := range list {
		alike[c.Code]++
	}
	for _, c := range list {
		name, s := severityName(c.Severity)
		shown[c.Code]++
		if n := alike[c.Code]; n > mostAlike+1 && shown[c.Code] == n { // one more takes no more room than this line
			c.Text, c.Remedy = fmt.Sprintf("%d more conditions are of this kind (%s). \"weft status --json\" shows all.", n-mostAlike, c.Code), ""
		} else if n > mostAlike+1 && shown[c.Code] > mostAlike {
			continue
		}
		text, remedy := printable.Text(c.Text), printable.Text(c.Remedy)
		if d.width == 0 {
			text, remedy = strings.TrimSpace(text+" "+remedy), ""
		} else {
			_, _ = fmt.Fprintln(w)
		}
		indent := strings.Repeat(" ", fieldIndent)
		_, _ = fmt.Fprintf(w, "%s%s  %s\n", strings.Repeat(" ", max(fieldIndent-2-len(name), 0)), d.paint(s, name),
			strings.Join(d.wrap(text, fieldIndent), "\n"+indent))
		if remedy != "" {
			_, _ = fmt.Fprintf(w, "%s%s\n", indent, strings.Join(d.wrap(remedy, fieldIndent), "\n"+indent))
		}
		for _, command := range api.Commands(c.Remedy) {
			_, _ = fmt.Fprintf(w, "%s%s\n", strings.Repeat(" ", fieldIndent+2), d.paint(cyan, printable.Text(command)))
		}
	}
}

// severityRank orders severities; that of a later version counts as an info.
func severityRank(s api.Severity) int {
	switch s {
	case api.SeverityError:
		return 2
	case api.SeverityWarning:
		return 1
	default:
		return 0
	}
}

// severityName returns the word and the style of a severity.
func severityName(s api.Severity) (string, style) {
	switch s {
	case api.SeverityError:
		return "Error", red
	case api.SeverityWarning:
		return "Warning", yellow
	default:
		return "Info", cyan
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

// inward are the modes for packets from outside the overlay in words.
var inward = map[api.InwardMode]string{
	api.InwardNAT: ", inward with this host's address", api.InwardKeep: ", inward with the clients' addresses",
}

// encryption describes whether traffic is encrypted, and the progress of a change of secrets.
func encryption(s api.Status) string {
	switch {
	case !s.Encrypted:
		return "off: anyone on the path between two nodes can read their traffic"
	case s.Droppable:
		return fmt.Sprintf("on, %s; all nodes alive have the first: the others may be dropped", plural.Count(s.Secrets, "secret"))
	case s.Network == api.NetworkIdentities:
		return "on, by identities"
	case s.Network == api.NetworkBoth:
		return "on, by identities and a secret; see \"Move from a secret to identities\" in docs/OPERATIONS.md"
	case s.Secrets > 1:
		return fmt.Sprintf("on, %s; some nodes do not have the first yet", plural.Count(s.Secrets, "secret"))
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
