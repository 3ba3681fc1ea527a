//go:build man

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"weft/internal/docgen"
	"weft/internal/hint"
	"weft/internal/usage"
)

func init() { extraCommands = append(extraCommands, newManCommand) }

// newManCommand writes the manual pages: "go run -tags man ./cmd/weft man DIR". It needs a build tag, so that the product
// does not link package docgen, which is for tests.
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
			pages := docgen.Man(cmd.Root(), docgen.ManOptions{
				Date: date, Source: "weft", Sections: manSections,
				Defaults: map[string]string{"name": "the host's name"}, // not the name of the build host
			})
			for name, text := range pages {
				if err := os.WriteFile(filepath.Join(args[0], name), []byte(text), 0o644); err != nil {
					return fmt.Errorf("manual pages: %w", err)
				}
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
