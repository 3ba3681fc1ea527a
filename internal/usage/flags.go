package usage

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"weft/internal/hint"
	"weft/internal/suggest"
)

// FlagError words an error of package pflag. It is for (*cobra.Command).SetFlagErrorFunc.
func FlagError(cmd *cobra.Command, err error) error {
	help := fmt.Sprintf("%q lists the flags.", cmd.CommandPath()+" --help")
	if e, ok := errors.AsType[*pflag.NotExistError](err); ok {
		return unknownFlag(cmd, e, help)
	}
	if e, ok := errors.AsType[*pflag.ValueRequiredError](err); ok {
		name := "--" + e.GetFlag().Name
		return hint.Refuse(name, fmt.Sprintf("Write a value after it. %q describes it.", cmd.CommandPath()+" --help"), "it has no value")
	}
	if e, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		return InvalidValue(e.GetFlag(), e.GetValue(), "", errors.Unwrap(e))
	}
	if e, ok := errors.AsType[*pflag.InvalidSyntaxError](err); ok {
		return hint.New(hint.Usage, help, "%s is not a flag", Quote(e.GetSpecifiedFlag()))
	}
	return hint.New(hint.Usage, help, "%w", err)
}

// unknownFlag is the error about a flag that a command does not have.
func unknownFlag(cmd *cobra.Command, e *pflag.NotExistError, help string) error {
	name, wrote := e.GetSpecifiedName(), "--"+e.GetSpecifiedName()
	if short := e.GetSpecifiedShortnames(); short != "" {
		name, wrote = short, "-"+short // a long flag with one dash is parsed as a group of short ones
		if before, _, hasValue := strings.Cut(short, "="); hasValue {
			name, wrote = before, "-"+before
		}
	}
	if near, ok := nearFlag(cmd.Flags(), name); ok {
		help = fmt.Sprintf("Did you mean --%s? ", near) + help
	}
	return hint.New(hint.Usage, help, "%s has no flag %s", cmd.CommandPath(), wrote)
}

// nearFlag returns the name of the flag that is most like name.
func nearFlag(flags *pflag.FlagSet, name string) (near string, ok bool) {
	var names []string
	flags.VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	})
	return suggest.Nearest(name, names)
}

// InvalidValue returns the error about a value that a flag cannot have. Source says where the value is from, such as "environment
// variable WEFT_MTU"; empty: the command line. Cause is the error of the flag.
func InvalidValue(f *pflag.Flag, value, source string, cause error) *hint.Error {
	what, fix := wantOf(f, value, cause)
	if source != "" {
		source = " (" + source + ")"
	}
	return hint.Refuse("--"+f.Name, fix, "%s %s%s", Quote(value), what, source)
}

// wantOf says what is wrong with a value of a flag, and how to write one.
func wantOf(f *pflag.Flag, value string, cause error) (what, fix string) {
	switch f.Value.Type() {
	case "int":
		if errors.Is(cause, strconv.ErrRange) {
			return "is out of range", "Write a smaller number."
		}
		return "is not a whole number", "Write a number in digits, without a unit."
	case "intSlice":
		return "is not a list of whole numbers", "Write numbers in digits, separated by commas, such as 10,50."
	case "duration":
		if _, err := strconv.ParseFloat(value, 64); err == nil {
			return "is a duration without a unit", fmt.Sprintf("Write a unit after the number, such as %ss, %sm or %sh.", value, value, value)
		}
		return "is not a duration", "Write a number and its unit, such as 30s, 5m or 2h."
	case "bool":
		return "is neither true nor false", "Write the flag alone, or =true or =false after it."
	case "stringSlice":
		return "is not a list", "Write values separated by commas, without quotes."
	}
	return fmt.Sprintf("cannot be its value: %v", cause), "Write another value."
}
