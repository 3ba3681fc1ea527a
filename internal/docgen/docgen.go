// Package docgen writes the reference of a program's commands as Markdown, from the command tree that also answers --help. It is for
// tests, which hold the pages in docs/ to the programs.
package docgen

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Options say what the command tree does not.
type Options struct {
	// Environment has, for the path of a command ("weft up"), what starts the environment variables that stand for its flags.
	Environment map[string]string
	// SameAs has, for the path of a command, that of another whose flags it takes as well: they are not listed twice.
	SameAs map[string]string
}

// Markdown returns a list of the commands below root, hidden ones left out, and a section for each, in the order in which help shows
// them. root is not changed.
func Markdown(root *cobra.Command, o Options) string {
	var b strings.Builder
	commands := below(root)
	b.WriteString("| command | does |\n|---|---|\n")
	for _, c := range commands {
		fmt.Fprintf(&b, "| [`%s`](#%s) | %s |\n", c.CommandPath(), Anchor(c.CommandPath()), cell(c.Short))
	}
	if flags := local(root.PersistentFlags(), nil); len(flags) > 0 {
		b.WriteString("\nEvery command takes:\n\n")
		table(&b, flags, "")
	}
	for _, c := range commands {
		section(&b, c, o)
	}
	return b.String()
}

// Anchor returns the anchor of a heading that is the path of a command.
func Anchor(path string) string { return strings.ReplaceAll(path, " ", "-") }

// below returns the commands below c that are shown, each before its own.
func below(c *cobra.Command) (all []*cobra.Command) {
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			all = append(append(all, sub), below(sub)...)
		}
	}
	return all
}

func section(b *strings.Builder, c *cobra.Command, o Options) {
	path := c.CommandPath()
	fmt.Fprintf(b, "\n## %s\n\n%s\n\n```\n%s\n```\n", path, description(c), c.UseLine())
	if c.Example != "" {
		fmt.Fprintf(b, "\nExamples:\n\n```\n%s\n```\n", outdent(c.Example))
	}
	var other *pflag.FlagSet
	if same := o.SameAs[path]; same != "" {
		found, _, err := c.Root().Find(strings.Fields(same)[1:])
		if err != nil {
			panic(fmt.Sprintf("manual: %s: %v", same, err)) // a mistake in the test that calls it
		}
		other = found.Flags()
		fmt.Fprintf(b, "\nIt takes all flags of [`%s`](#%s).\n", same, Anchor(same))
	}
	if flags := local(c.LocalNonPersistentFlags(), other); len(flags) > 0 {
		b.WriteByte('\n')
		table(b, flags, o.Environment[path])
	}
}

// description is what a command says at length, or else its line.
func description(c *cobra.Command) string {
	text := c.Long
	if text == "" {
		text = c.Short
	}
	paragraphs := strings.Split(text, "\n\n")
	for i, p := range paragraphs {
		if strings.HasPrefix(p, "\t") { // an example within the text
			paragraphs[i] = "```\n" + outdent(p) + "\n```"
			continue
		}
		lines := strings.Split(strings.TrimRight(p, "\n"), "\n")
		for n, line := range lines {
			lines[n] = escape(strings.TrimSpace(line))
		}
		paragraphs[i] = strings.Join(lines, "\n")
		if last := paragraphs[i]; i == len(paragraphs)-1 && last != "" && !strings.HasSuffix(last, ".") {
			paragraphs[i] += "."
		}
	}
	return strings.Join(paragraphs, "\n\n")
}

// local returns the flags of a set that are shown and that other does not have, in the order of help.
func local(set, other *pflag.FlagSet) (flags []*pflag.Flag) {
	set.VisitAll(func(f *pflag.Flag) {
		if !f.Hidden && f.Name != "help" && (other == nil || other.Lookup(f.Name) == nil) {
			flags = append(flags, f)
		}
	})
	return flags
}

// table writes flags, with their environment variables where prefix is not empty.
func table(b *strings.Builder, flags []*pflag.Flag, prefix string) {
	header, rule := "| flag | default | meaning |\n", "|---|---|---|\n"
	if prefix != "" {
		header, rule = "| flag | environment | default | meaning |\n", "|---|---|---|---|\n"
	}
	b.WriteString(header + rule)
	for _, f := range flags {
		name := "`--" + f.Name + "`"
		if f.Shorthand != "" {
			name = "`-" + f.Shorthand + "`, " + name
		}
		kind, usage := pflag.UnquoteUsage(f)
		if kind != "" {
			name += " " + kind
		}
		fmt.Fprintf(b, "| %s |", name)
		if prefix != "" {
			fmt.Fprintf(b, " `%s%s` |", prefix, strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_")))
		}
		fmt.Fprintf(b, " %s | %s |\n", preset(f), cell(usage))
	}
}

// preset is a flag's default, nothing where there is none.
func preset(f *pflag.Flag) string {
	value := f.DefValue
	if f.Value.Type() == "stringSlice" || f.Value.Type() == "intSlice" {
		value = strings.Trim(value, "[]")
	}
	switch {
	case value == "" || value == "false" || value == "0": // help leaves them out too
		return ""
	case strings.Contains(value, " "): // words
		return cell(value)
	}
	return "`" + value + "`"
}

// cell makes text fit a cell of a table: a sentence without its end.
func cell(text string) string {
	return strings.ReplaceAll(escape(strings.ReplaceAll(text, "\n", " ")), "|", "\\|")
}

// escape keeps characters from being taken for markup.
func escape(text string) string {
	return strings.NewReplacer("<", "\\<", "*", "\\*", "`", "\\`").Replace(text)
}

// outdent takes away the indentation that all lines share with the first.
func outdent(text string) string {
	text = strings.TrimRight(text, " \t\n")
	indent := text[:len(text)-len(strings.TrimLeft(text, " \t"))]
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.TrimPrefix(lines[i], indent)
	}
	return strings.Join(lines, "\n")
}
