// Package settings sets the flags of a command from the environment and from a YAML file. A flag on the command line
// overrides the environment, the environment overrides the file, and the file overrides the default.
package settings

import (
	"errors"
	"slices"
	"sort"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"weft/internal/hint"
)

// ErrFile is wrapped by errors that concern the file as a whole.
var ErrFile = errors.New("settings: not a YAML mapping of flags to values")

// Fill sets every flag that is not on the command line: from the environment variable named by prefix and the
// flag's name in capitals with underscores, as lookup returns it; otherwise from text, the YAML text (nil for none) of
// the file called name. A flag that may be repeated gets its values from a list in the file, or from a comma-separated
// list in the environment. Flags in except are not changed. Errors are *hint.Error; those about the file as a whole wrap ErrFile.
func Fill(flags *pflag.FlagSet, prefix string, lookup func(string) (string, bool), name string, text []byte, except ...string) error {
	values, err := parse(name, text)
	if err != nil {
		return err
	}
	for _, e := range except {
		delete(values, e)
	}
	if err := unknown(flags, name, values); err != nil {
		return err
	}
	var first error
	flags.VisitAll(func(f *pflag.Flag) {
		if first != nil || f.Changed || slices.Contains(except, f.Name) {
			return
		}
		variable := prefix + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if v, ok := lookup(variable); ok {
			first = set(flags, f.Name, "environment variable "+variable, strings.Split(v, ","))
		} else if v, ok := values[f.Name]; ok {
			first = set(flags, f.Name, f.Name+" in "+name, v)
		}
	})
	return first
}

// parse parses a YAML mapping of keys to scalars or lists of scalars.
func parse(name string, text []byte) (map[string][]string, error) {
	var doc map[string]yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, refuseFile("%w: %s: %w", ErrFile, name, err)
	}
	values := make(map[string][]string, len(doc))
	for key, node := range doc {
		switch {
		case node.Kind == yaml.ScalarNode && node.Tag != "!!null":
			values[key] = []string{node.Value}
		case node.Kind == yaml.SequenceNode:
			list := make([]string, 0, len(node.Content))
			for _, item := range node.Content {
				if item.Kind != yaml.ScalarNode {
					return nil, refuseFile("%w: %s: %s: want a value or a list of values", ErrFile, name, key)
				}
				list = append(list, item.Value)
			}
			values[key] = list
		default:
			return nil, refuseFile("%w: %s: %s: want a value or a list of values", ErrFile, name, key)
		}
	}
	return values, nil
}

// unknown returns an error for the first key, in alphabetical order, that is not the name of a flag.
func unknown(flags *pflag.FlagSet, name string, values map[string][]string) error {
	keys := make([]string, 0, len(values))
	for key := range values {
		if flags.Lookup(key) == nil {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	sort.Strings(keys)
	return refuseFile("%w: %s: unknown key %q", ErrFile, name, keys[0])
}

func set(flags *pflag.FlagSet, flag, source string, values []string) error {
	f := flags.Lookup(flag)
	if list, ok := f.Value.(pflag.SliceValue); ok {
		if err := list.Replace(values); err != nil {
			return refuse(flag, source, err)
		}
		f.Changed = true
		return nil
	}
	if err := flags.Set(flag, strings.Join(values, ",")); err != nil {
		// The error of pflag repeats the flag and the value; its cause is the rest.
		if cause := errors.Unwrap(err); cause != nil {
			err = cause
		}
		return refuse(flag, source, err)
	}
	return nil
}

// refuse returns an error about the value of a flag from source, such as "environment variable WEFT_MTU" or "mtu in FILE".
func refuse(flag, source string, err error) error {
	return hint.Refuse("--"+flag, "See \"weft up --help\" for the values of --"+flag+".", "%s: %w", source, err)
}

// refuseFile returns an error about the file as a whole.
func refuseFile(format string, args ...any) error {
	return hint.New(hint.Usage, "The keys of the file are the flags of \"weft up\", without dashes before them.", format, args...)
}
