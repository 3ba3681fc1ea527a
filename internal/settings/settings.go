// Package settings fills a command's flags from where else an operator may have said them: the environment and a file.
// A flag beats the environment, the environment beats the file, the file beats the default.
package settings

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// ErrFile is wrapped by errors about the file as a whole.
var ErrFile = errors.New("settings: not a YAML mapping of flags to values")

// Error says which setting is wrong: Source is "environment variable WEFT_MTU" or "mtu in FILE".
type Error struct {
	Flag   string // without dashes
	Source string
	Err    error
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("--%s: %s: %v", e.Flag, e.Source, e.Err) }

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// Fill sets every flag that was not given on the command line: from the environment variable prefix plus the flag's
// name in capitals with underscores, as lookup finds it, else from the YAML text of the file called name (nil for
// none). A list in the file, or commas in the environment, set a flag that may be repeated. Flags named in except are
// left alone. Errors are *Error, or wrap ErrFile.
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

// parse reads a mapping of keys to scalars or lists of scalars.
func parse(name string, text []byte) (map[string][]string, error) {
	var doc map[string]yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrFile, name, err)
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
					return nil, fmt.Errorf("%w: %s: %s: want a value or a list of values", ErrFile, name, key)
				}
				list = append(list, item.Value)
			}
			values[key] = list
		default:
			return nil, fmt.Errorf("%w: %s: %s: want a value or a list of values", ErrFile, name, key)
		}
	}
	return values, nil
}

// unknown returns an error for the first key, in alphabetical order, that is no flag.
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
	return fmt.Errorf("%w: %s: unknown key %q", ErrFile, name, keys[0])
}

func set(flags *pflag.FlagSet, flag, source string, values []string) error {
	f := flags.Lookup(flag)
	if list, ok := f.Value.(pflag.SliceValue); ok {
		if err := list.Replace(values); err != nil {
			return &Error{Flag: flag, Source: source, Err: err}
		}
		f.Changed = true
		return nil
	}
	if err := flags.Set(flag, strings.Join(values, ",")); err != nil {
		// pflag's error repeats flag and value; its cause says what is wrong
		if cause := errors.Unwrap(err); cause != nil {
			err = cause
		}
		return &Error{Flag: flag, Source: source, Err: err}
	}
	return nil
}
