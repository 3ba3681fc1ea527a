package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"weft/internal/api"
	"weft/internal/hint"
	"weft/internal/printable"
	"weft/internal/usage"
)

// topOptions are the flags of "weft top".
type topOptions struct {
	api.TopRequest
	sort  string
	color string
}

func newTopCommand(e *env) *cobra.Command {
	o := topOptions{}
	cmd := addColorFlag(e.addJSONFlag(&cobra.Command{
		Use:   "top",
		Short: "Show the traffic with each peer and the largest flows, live",
		Long: "Show the traffic with each peer and the largest flows through this node, live: rates of frames of pods, dropped\n" +
			"frames, the round-trip time, and what carries the frames. On a terminal, q quits and s changes the order.\n" +
			"Without a terminal, each interval is printed below the last one; with --json, as one document a line.\n\n" +
			"Flows are estimates from a sample of the frames. So are rates with ~, of peers to which the kernel carries\n" +
			"frames. Frames are sampled only while the command runs.",
		Example: "  weft top\n  weft top --json --count 1 --interval 5s",
		Args:    usage.Arguments(0, 0),
		RunE:    func(cmd *cobra.Command, _ []string) error { return runTop(cmd.Context(), e, o) },
	}), &o.color)
	cmd.Flags().DurationVar(&o.Interval, "interval", 2*time.Second, "`time` between two updates")
	cmd.Flags().IntVarP(&o.Count, "count", "c", 0, "stop after this number of `updates`; 0: at q or Ctrl-C")
	cmd.Flags().StringVar(&o.sort, "sort", sortOrders[0], "sort the peers by this `order`: "+strings.Join(sortOrders, ", "))
	completeValues(cmd, "sort", sortOrders...)
	return cmd
}

func runTop(ctx context.Context, e *env, o topOptions) error {
	if !slices.Contains(sortOrders, o.sort) {
		return hint.New(hint.Usage, "Give "+strings.Join(sortOrders, ", ")+".", "--sort: %q is not valid", o.sort)
	}
	d, err := displayOf(e.stdout, o.color)
	if err != nil {
		return err
	}
	out, terminal := e.stdout.(*os.File)
	switch {
	case e.json:
		err = e.client().Top(ctx, o.TopRequest, func(t api.Top) error { return writeTopJSON(e.stdout, t) })
	case terminal && d.width > 0 && !isDumb() && term.IsTerminal(int(os.Stdin.Fd())):
		err = runLiveTop(ctx, e.client(), o, os.Stdin, out, d.color)
	default:
		err = e.client().Top(ctx, o.TopRequest, func(t api.Top) error {
			_, err := io.WriteString(e.stdout, strings.Join(topView{sort: o.sort, display: d}.lines(t), "\n")+"\n\n")
			return err
		})
	}
	if ctx.Err() != nil {
		err = nil // Ctrl-C is the normal end
	}
	return err
}

// writeTopJSON writes a document as one line.
func writeTopJSON(w io.Writer, t api.Top) error {
	text, err := json.Marshal(t)
	if err == nil {
		_, err = w.Write(append(printable.JSON(text), '\n'))
	}
	if err != nil {
		return fmt.Errorf("writing the output: %w", err)
	}
	return nil
}
