package docgen

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
)

func TestMarkdown(t *testing.T) {
	noop := func(*cobra.Command, []string) {}
	root := &cobra.Command{Use: "net"}
	root.PersistentFlags().String("socket", "", "where it listens")
	up := &cobra.Command{
		Use: "up [PEER...]", Short: "Run", Long: "Run it.\n\nA <name> is\nneeded\n\n\tnet up\n\nEnd",
		Example: "  net up a\n  net up b", Run: noop,
	}
	up.Flags().Int("dry-run", 3, "one of a|b `times`")
	up.Flags().StringSliceP("range", "r", []string{"10.0.0.0/8"}, "which")
	up.Flags().Bool("odd", false, "is odd")
	_ = up.Flags().MarkHidden("odd")
	check := &cobra.Command{Use: "check", Short: "Look", Run: noop}
	check.Flags().AddFlagSet(up.Flags())
	check.Flags().Bool("json", false, "as JSON")
	ip := &cobra.Command{Use: "ip", Short: "Addresses"}
	ip.AddCommand(&cobra.Command{Use: "list", Short: "List them", Run: noop})
	root.AddCommand(up, check, ip, &cobra.Command{Use: "man", Hidden: true, Run: noop})
	got := Markdown(root, Options{Environment: map[string]string{"net up": "NET_"}, SameAs: map[string]string{"net check": "net up"}})
	want := `| command | does |
|---|---|
| [` + "`net check`" + `](#net-check) | Look |
| [` + "`net ip`" + `](#net-ip) | Addresses |
| [` + "`net ip list`" + `](#net-ip-list) | List them |
| [` + "`net up`" + `](#net-up) | Run |

Flags of every command:

| flag | default | meaning |
|---|---|---|
| ` + "`--socket`" + ` string |  | where it listens |

## net check

Look.

` + "```\nnet check [flags]\n```" + `

It accepts all flags of [` + "`net up`" + `](#net-up).

| flag | default | meaning |
|---|---|---|
| ` + "`--json`" + ` |  | as JSON |

## net ip

Addresses.

` + "```\nnet ip\n```" + `

## net ip list

List them.

` + "```\nnet ip list\n```" + `

## net up

Run it.

A \<name> is
needed

` + "```\nnet up\n```" + `

End.

` + "```\nnet up [PEER...] [flags]\n```" + `

Examples:

` + "```\nnet up a\nnet up b\n```" + `

| flag | environment | default | meaning |
|---|---|---|---|
| ` + "`--dry-run`" + ` times | ` + "`NET_DRY_RUN`" + ` | ` + "`3`" + ` | one of a\|b times |
| ` + "`-r`, `--range`" + ` strings | ` + "`NET_RANGE`" + ` | ` + "`10.0.0.0/8`" + ` | which |
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
