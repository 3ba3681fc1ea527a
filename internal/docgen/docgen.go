// Package docgen generates the reference of a program's commands as Markdown, from the command tree that also prints
// --help, and finds what a page does not quote of a golden file. Tests use it to keep the pages in docs/ in step with the
// programs.
package docgen

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Options are facts that the command tree does not contain.
type Options struct {
	// Environment maps the path of a command ("weft up") to the prefix of the environment variables that set its flags.
	Environment map[string]string
	// SameAs maps the path of a command to the path of another command, if the first accepts all flags of the second.
	// These flags are listed only for the second.
	SameAs map[string]string
}

// Markdown returns a table of the commands below root and a section for each of them, in the order of help. Hidden
// commands are left out. It does not change root.
func Markdown(root *cobra.Command, o Options) string {
	var b strings.Builder
	commands := below(root)
	b.WriteString("| command | does |\n|---|---|\n")
	for _, c := range commands {
		fmt.Fprintf(&b, "| [`%s`](#%s) | %s |\n", c.CommandPath(), Anchor(c.CommandPath()), cell(c.Short))
	}
	if flags := local(root.PersistentFlags(), nil); len(flags) > 0 {
		b.WriteString("\nFlags of every command:\n\n")
		table(&b, flags, "")
	}
	for _, c := range commands {
		section(&b, c, o)
	}
	return b.String()
}

// Anchor returns the Markdown anchor of the section of a command, given the path of the command.
func Anchor(path string) string { return strings.ReplaceAll(path, " ", "-") }

// below returns all available commands below c, each before its subcommands.
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
			panic(fmt.Sprintf("docgen: %s: %v", same, err)) // a bug in the calling test
		}
		other = found.Flags()
		fmt.Fprintf(b, "\nIt accepts all flags of [`%s`](#%s).\n", same, Anchor(same))
	}
	if flags := local(c.LocalNonPersistentFlags(), other); len(flags) > 0 {
		b.WriteByte('\n')
		table(b, flags, o.Environment[path])
	}
}

// description returns the long text of a command as Markdown, or the short text if there is no long one.
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

// local returns the visible flags of set that are not in other (nil for none), in the order of help.
func local(set, other *pflag.FlagSet) (flags []*pflag.Flag) {
	set.VisitAll(func(f *pflag.Flag) {
		if !f.Hidden && f.Name != "help" && (other == nil || other.Lookup(f.Name) == nil) {
			flags = append(flags, f)
		}
	})
	return flags
}

// table writes a table of flags. A prefix adds a column with their environment variables.
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

// preset returns the default of a flag as a cell, empty if there is no default.
func preset(f *pflag.Flag) string {
	value := f.DefValue
	if f.Value.Type() == "stringSlice" || f.Value.Type() == "intSlice" {
		value = strings.Trim(value, "[]")
	}
	switch {
	case value == "" || value == "false" || value == "0": // help shows no default either
		return ""
	case strings.Contains(value, " "): // a description, not a value
		return cell(value)
	}
	return "`" + value + "`"
}

// cell formats text for a cell of a table: on one line, with markup and column separators escaped.
func cell(text string) string {
	return strings.ReplaceAll(escape(strings.ReplaceAll(text, "\n", " ")), "|", "\\|")
}

// escape escapes characters that Markdown interprets as markup.
func escape(text string) string {
	return strings.NewReplacer("<", "\\<", "*", "\\*", "`", "\\`").Replace(text)
}

// outdent removes the indentation of the first line from all lines, and the white space at the end.
func outdent(text string) string {
	text = strings.TrimRight(text, " \t\n")
	indent := text[:len(text)-len(strings.TrimLeft(text, " \t"))]
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.TrimPrefix(lines[i], indent)
	}
	return strings.Join(lines, "\n")
}
