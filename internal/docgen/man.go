package docgen

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// ManOptions are facts about a program that its command tree does not contain.
type ManOptions struct {
	Date     time.Time // of the pages
	Source   string    // the package that the program belongs to
	Defaults map[string]string
	// Sections are further sections of the page of the program itself, between its commands and SEE ALSO.
	Sections []ManSection
}

// ManSection is a section of a manual page.
type ManSection struct {
	Name  string // in capitals, as man-pages(7) has it
	Parts []ManPart
}

// ManPart is a part of a section: an entry of a list if it has a term, an example if it has code, else a paragraph.
type ManPart struct{ Term, Text, Code string }

// Man returns the manual pages of a program in section 8, by the name of the file: one for root and for each command below it. Hidden
// commands are left out. The format is man(7). It does not change root.
func Man(root *cobra.Command, o ManOptions) map[string]string {
	pages := map[string]string{}
	for _, c := range append([]*cobra.Command{root}, below(root)...) {
		pages[manName(c)+".8"] = manPage(c, o)
	}
	return pages
}

// manName returns the name of the page of a command, such as "weft-ip-list".
func manName(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

func manPage(c *cobra.Command, o ManOptions) string {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH %s 8 %s %s\n", quoted(strings.ToUpper(manName(c))), quoted(o.Date.Format(time.DateOnly)), quoted(o.Source))
	b.WriteString(".nh\n.ad l\n") // no hyphens in names that are to be copied
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", roff(manName(c)), roff(lowerFirst(c.Short)))
	b.WriteString(".SH SYNOPSIS\n")
	if c.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "\\fB%s\\fP \\fIcommand\\fP [\\fIflags\\fP]\n", roff(c.CommandPath()))
	} else {
		fmt.Fprintf(&b, "\\fB%s\\fP%s\n", roff(c.CommandPath()), roff(strings.TrimPrefix(c.UseLine(), c.CommandPath())))
	}
	b.WriteString(".SH DESCRIPTION\n")
	manText(&b, c.Long, c.Short)
	manFlags(&b, "OPTIONS", c.LocalFlags(), o.Defaults)
	manFlags(&b, "OPTIONS OF EVERY COMMAND", c.InheritedFlags(), nil)
	if c.Example != "" {
		b.WriteString(".SH EXAMPLES\n")
		manCode(&b, outdent(c.Example))
	}
	manCommands(&b, c)
	if !c.HasParent() {
		for _, s := range o.Sections {
			manSection(&b, s)
		}
	}
	manSeeAlso(&b, c)
	return b.String()
}

// manText writes paragraphs; those that begin with a tab are examples.
func manText(b *strings.Builder, text, short string) {
	if text == "" {
		text = short + "."
	}
	for i, p := range strings.Split(text, "\n\n") {
		if strings.HasPrefix(p, "\t") {
			manCode(b, outdent(p))
			continue
		}
		if i > 0 {
			b.WriteString(".PP\n")
		}
		b.WriteString(roff(strings.TrimSpace(p)) + "\n")
	}
}

func manCode(b *strings.Builder, code string) {
	fmt.Fprintf(b, ".PP\n.RS 4\n.nf\n%s\n.fi\n.RE\n", roff(code))
}

// manFlags writes the visible flags of a set but for --help.
func manFlags(b *strings.Builder, section string, set *pflag.FlagSet, defaults map[string]string) {
	flags := local(set, nil)
	if len(flags) == 0 {
		return
	}
	fmt.Fprintf(b, ".SH %s\n", section)
	for _, f := range flags {
		kind, usage := pflag.UnquoteUsage(f)
		name := "\\fB" + roff("--"+f.Name) + "\\fP"
		if f.Shorthand != "" {
			name = "\\fB" + roff("-"+f.Shorthand) + "\\fP, " + name
		}
		if kind != "" {
			name += " \\fI" + roff(kind) + "\\fP"
		}
		value := strings.Trim(preset(f), "`")
		if d, ok := defaults[f.Name]; ok {
			value = d
		}
		if value != "" {
			usage += " (default " + value + ")"
		}
		fmt.Fprintf(b, ".TP\n%s\n%s\n", name, roff(usage))
	}
}

// manCommands writes a list of the subcommands, each with its page.
func manCommands(b *strings.Builder, c *cobra.Command) {
	if !c.HasAvailableSubCommands() {
		return
	}
	b.WriteString(".SH COMMANDS\n")
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			fmt.Fprintf(b, ".TP\n\\fB%s\\fP(8)\n%s\n", roff(manName(sub)), roff(sub.Short))
		}
	}
}

func manSection(b *strings.Builder, s ManSection) {
	fmt.Fprintf(b, ".SH %s\n", quoted(s.Name))
	for i, p := range s.Parts {
		switch {
		case p.Term != "":
			fmt.Fprintf(b, ".TP\n\\fB%s\\fP\n%s\n", roff(p.Term), roff(p.Text))
		case p.Code != "":
			manCode(b, p.Code)
		default:
			if i > 0 {
				b.WriteString(".PP\n")
			}
			b.WriteString(roff(p.Text) + "\n")
		}
	}
}

// manSeeAlso names the pages of the command above, and of those beside it for a command of a group.
func manSeeAlso(b *strings.Builder, c *cobra.Command) {
	if !c.HasParent() {
		return
	}
	pages := []string{"\\fB" + roff(manName(c.Parent())) + "\\fP(8)"}
	if c.Parent().HasParent() {
		for _, sub := range c.Parent().Commands() {
			if sub.IsAvailableCommand() && sub != c {
				pages = append(pages, "\\fB"+roff(manName(sub))+"\\fP(8)")
			}
		}
	}
	fmt.Fprintf(b, ".SH \"SEE ALSO\"\n%s\n", strings.Join(pages, ", "))
}

// roff escapes text for man(7): backslashes, hyphens that are to be copied, and characters that begin a request.
func roff(text string) string {
	lines := strings.Split(strings.NewReplacer("\\", "\\e", "-", "\\-").Replace(text), "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = "\\&" + line
		}
	}
	return strings.Join(lines, "\n")
}

// quoted returns an argument of a request.
func quoted(text string) string { return `"` + strings.ReplaceAll(roff(text), `"`, `\(dq`) + `"` }

func lowerFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToLower(s[:1]) + s[1:]
}
