package main

import (
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"weft/internal/hint"
)

// Values of --color.
const (
	colorAuto   = "auto"
	colorAlways = "always"
	colorNever  = "never"
)

// addColorFlag adds --color to a command.
func addColorFlag(cmd *cobra.Command, value *string) *cobra.Command {
	cmd.Flags().StringVar(value, "color", colorAuto, "use colors: `when` is auto, always or never")
	completeValues(cmd, "color", colorAuto, colorAlways, colorNever)
	return cmd
}

// completeValues makes the shell complete a flag with values. The flag exists.
func completeValues(cmd *cobra.Command, flag string, values ...string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}

// style is a list of parameters of SGR, the escape sequence for styles (ECMA-48, section 8.3.117).
type style string

// Styles. Each is beside a word that says the same, for terminals and people without colors.
const (
	plain  style = ""
	bold   style = "1"
	dim    style = "2"
	red    style = "1;31"
	yellow style = "1;33"
	cyan   style = "36"
)

// display is how an output shows text for people.
type display struct {
	width int  // columns of the terminal; 0: not a terminal, so lines are not wrapped
	color bool // text may have styles
}

// displayOf returns the display of an output. The colors are those of --color; with auto a terminal has them unless its environment
// refuses them (https://no-color.org).
func displayOf(out io.Writer, color string) (display, error) {
	d := display{}
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		d.width, _, _ = term.GetSize(int(f.Fd()))
	}
	switch color {
	case colorAuto:
		d.color = d.width > 0 && os.Getenv("NO_COLOR") == "" && !isDumb()
	case colorAlways:
		d.color = true
	case colorNever:
	default:
		return d, hint.Refuse("--color", "Give auto, always or never.", "%q is not valid", color)
	}
	return d, nil
}

// isDumb reports whether the terminal understands no escape sequences.
func isDumb() bool { t := os.Getenv("TERM"); return t == "" || t == "dumb" }

// paint returns printable text in a style.
func (d display) paint(s style, text string) string {
	if !d.color || s == plain || text == "" {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}

// minWrap is the narrowest column that text is wrapped to.
const minWrap = 24

// wrap returns the lines of text for a column that begins behind indent columns. A word is never cut.
func (d display) wrap(text string, indent int) (lines []string) {
	width := max(d.width-indent, minWrap)
	if d.width == 0 {
		return []string{text}
	}
	line := ""
	for _, word := range strings.Fields(text) {
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) <= width:
			line += " " + word
		default:
			lines, line = append(lines, line), word
		}
	}
	return append(lines, line)
}
