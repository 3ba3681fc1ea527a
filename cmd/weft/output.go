package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"weft/internal/printable"
)

// addJSONFlag adds --json to a command that shows a document, and returns the command.
func (e *env) addJSONFlag(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().BoolVar(&e.json, "json", false, "print JSON for programs")
	return cmd
}

// terminal returns standard output for text with parts of other nodes in it: nicknames, names, errors. Characters that would act
// on a terminal are replaced.
func (e *env) terminal() io.Writer { return &printable.Writer{W: e.stdout} }

// show prints doc as JSON if --json is set; otherwise it calls text to print it for people.
func (e *env) show(doc any, text func(w io.Writer)) error {
	if !e.json {
		text(e.terminal())
		return nil
	}
	var document bytes.Buffer
	enc := json.NewEncoder(&document)
	enc.SetIndent("", "  ")
	err := enc.Encode(doc)
	if err == nil {
		_, err = e.stdout.Write(printable.JSON(document.Bytes()))
	}
	if err != nil {
		return fmt.Errorf("writing the output: %w", err)
	}
	return nil
}

// showStyled is show for text that may have styles of a terminal: text makes all parts of other nodes printable itself.
func (e *env) showStyled(doc any, text func(w io.Writer)) error {
	if e.json {
		return e.show(doc, nil)
	}
	text(e.stdout)
	return nil
}

// table prints a header and rows in aligned columns. A cell is one line, whatever is in it.
func table(w io.Writer, header []string, rows [][]string) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{header}, rows...) {
		for i, cell := range row {
			if i > 0 {
				_, _ = io.WriteString(t, "\t")
			}
			_, _ = io.WriteString(t, printable.Text(cell))
		}
		_, _ = io.WriteString(t, "\n")
	}
	_ = t.Flush()
}

// orDash returns s, or "-" if s is empty.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// byteCount formats a number of bytes in powers of 1,000, such as "1.5 MB".
func byteCount(n uint64) string {
	const units = "kMGTPE"
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n)/1000, 0
	for v >= 999.95 && unit < len(units)-1 {
		v /= 1000
		unit++
	}
	return fmt.Sprintf("%.1f %cB", v, units[unit])
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
