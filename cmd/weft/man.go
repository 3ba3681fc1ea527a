//go:build man

package main

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"weft/internal/hint"
	"weft/internal/usage"
)

func init() { extraCommands = append(extraCommands, newManCommand) }

// newManCommand writes the manual pages: "go run -tags man ./cmd/weft man DIR". It needs a build tag, so that the product
// does not link a formatter for manual pages.
func newManCommand(*env) *cobra.Command {
	return &cobra.Command{
		Use:    "man DIR",
		Short:  "Write the manual pages into a folder",
		Hidden: true,
		Args:   usage.Arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			date, err := manDate()
			if err != nil {
				return err
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true // the tag contains the day of the build
			if up, _, err := root.Find([]string{"up"}); err == nil {
				up.Flags().Lookup("name").DefValue = "the host's name" // not the name of the build host
			}
			header := &doc.GenManHeader{Section: "8", Date: &date, Source: "weft", Manual: "weft"}
			if err := doc.GenManTree(root, header, args[0]); err != nil {
				return fmt.Errorf("manual pages: %w", err)
			}
			return nil
		},
	}
}

// manDate returns the date of the pages: SOURCE_DATE_EPOCH (reproducible-builds.org), by default 1970-01-01, so that
// builds are reproducible.
func manDate() (time.Time, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		text = "0"
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}, hint.New(hint.Usage, "Set it to seconds since 1970, or unset it.", "SOURCE_DATE_EPOCH: %w", err)
	}
	return time.Unix(seconds, 0).UTC(), nil
}
