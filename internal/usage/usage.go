// Package usage is what the programs of weft have in common as commands: it words mistakes in a command line as errors with a fix, and
// prints the error with which a program ends.
package usage

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"weft/internal/hint"
	"weft/internal/printable"
	"weft/internal/suggest"
)

// Prepare makes all commands below root word their mistakes as this package does. Call it once root has all its commands. The caller
// prints the errors.
func Prepare(root *cobra.Command) {
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetFlagErrorFunc(FlagError)
	root.InitDefaultHelpCmd()
	prepare(root)
	for _, child := range root.Commands() {
		switch child.Name() {
		case "help":
			child.Run, child.RunE = nil, showHelp
		case "completion":
			for _, shell := range child.Commands() {
				shell.Args = Arguments(0, 0)
			}
		}
	}
}

// showHelp runs "help COMMAND".
func showHelp(cmd *cobra.Command, args []string) error {
	about, rest, err := cmd.Root().Find(args)
	if err != nil || len(rest) > 0 {
		return Subcommands(cmd.Root(), args)
	}
	return about.Help()
}

// prepare makes a command that only groups others show its help, and refuse arguments that are none of them.
func prepare(cmd *cobra.Command) {
	if cmd.HasSubCommands() && cmd.RunE == nil && cmd.Run == nil {
		cmd.Args = Subcommands
		cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	}
	for _, child := range cmd.Commands() {
		prepare(child)
	}
}

// Exit prints the error of a program to w, with its hint on a line of its own, and returns the exit code. It prints nothing for nil.
// Programs read one line about wrong usage, as the contract of weft says, so there the hint follows on the same line unless w is a
// terminal.
func Exit(w io.Writer, program string, err error) (code int) {
	if err == nil {
		return hint.ExitDone
	}
	advice, code := hint.Of(err)
	if fix, ok := hint.Disk(err); ok {
		advice = fix
	}
	if isUnprivileged(err) {
		advice = "Run it as root, for example with sudo."
	}
	text := fmt.Sprintf("%s: %s", program, hint.Plain(err.Error()))
	if advice != "" {
		between := "\n"
		if code == hint.ExitUsage && !isTerminal(w) {
			between = "; "
		}
		text += between + "hint: " + advice
	}
	_, _ = io.WriteString(w, printable.Lines(text+"\n"))
	return code
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// isUnprivileged reports whether err is what root would not have met.
func isUnprivileged(err error) bool { return os.Geteuid() != 0 && errors.Is(err, fs.ErrPermission) }

// Subcommands is the Args function of a command that only groups other commands.
func Subcommands(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	advice := fmt.Sprintf("%q lists the commands.", cmd.CommandPath()+" --help")
	if path, ok := meant(cmd, args[0]); ok {
		advice = fmt.Sprintf("Did you mean %q? ", path) + advice
	}
	return hint.New(hint.Usage, advice, "%q is not a command of %s", args[0], cmd.CommandPath())
}

// meant returns the path of the command that a person may have meant by a word after cmd: one of that name anywhere in the program, or
// one below cmd with a name like it.
func meant(cmd *cobra.Command, word string) (path string, ok bool) {
	if found := named(cmd.Root(), word); found != nil {
		return found.CommandPath(), true
	}
	var names []string
	for _, child := range cmd.Commands() {
		if child.IsAvailableCommand() {
			names = append(names, child.Name())
		}
	}
	name, ok := suggest.Nearest(word, names)
	return cmd.CommandPath() + " " + name, ok
}

// named returns the first command of a name, or nil.
func named(cmd *cobra.Command, name string) *cobra.Command {
	for _, child := range cmd.Commands() {
		if child.Name() == name && child.IsAvailableCommand() {
			return child
		}
		if found := named(child, name); found != nil {
			return found
		}
	}
	return nil
}

// Arguments returns an Args function that accepts least to most arguments; most < 0 means no upper limit.
func Arguments(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return hint.New(hint.Usage, "Usage: "+cmd.UseLine(), "%s needs %s, and has %s", cmd.CommandPath(), wanted(least, most), count(len(args)))
		case most == 0 && len(args) > 0:
			return hint.New(hint.Usage, "Usage: "+cmd.UseLine(), "%s takes no arguments, and has %s", cmd.CommandPath(), quoted(args))
		case most > 0 && len(args) > most:
			return hint.New(hint.Usage, "Usage: "+cmd.UseLine(), "%s takes %s, and has also %s", cmd.CommandPath(), wanted(least, most),
				quoted(args[most:]))
		}
		return nil
	}
}

// None returns an Args function of a command without arguments. fix returns the hint for an argument that a person gave.
func None(fix func(arg string) string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		return hint.New(hint.Usage, fix(args[0]), "%s takes no arguments, and has %s", cmd.CommandPath(), quoted(args))
	}
}

// wanted says how many arguments a command takes.
func wanted(least, most int) string {
	switch {
	case most < 0:
		return "at least " + count(least)
	case least == most:
		return count(most)
	case least == 0:
		return "at most " + count(most)
	}
	return fmt.Sprintf("%d to %s", least, count(most))
}

func count(n int) string {
	switch n {
	case 0:
		return "none"
	case 1:
		return "1 argument"
	}
	return fmt.Sprintf("%d arguments", n)
}

// quoted returns arguments in quotes.
func quoted(args []string) string {
	texts := make([]string, len(args))
	for i, a := range args {
		texts[i] = Quote(a)
	}
	return strings.Join(texts, " ")
}

// maxQuoted is the length of the longest value, in characters, that a sentence repeats whole.
const maxQuoted = 80

// Quote returns a value of a person in quotes, shortened if it is long.
func Quote(value string) string {
	if utf8.RuneCountInString(value) > maxQuoted {
		value = string([]rune(value)[:maxQuoted]) + "…"
	}
	return fmt.Sprintf("%q", value)
}
