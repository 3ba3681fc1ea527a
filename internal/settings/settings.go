// Package settings sets the flags of a command from the environment and from a YAML file. A flag on the command line
// overrides the environment, the environment overrides the file, and the file overrides the default.
package settings

import (
	"errors"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"weft/internal/hint"
	"weft/internal/suggest"
	"weft/internal/usage"
)

// ErrFile is wrapped by errors that concern the file as a whole.
var ErrFile = errors.New("not a YAML mapping of flags to values")

// Fill sets every flag that is not on the command line: from the environment variable named by prefix and the
// flag's name in capitals with underscores, if env has it; otherwise from text, the YAML text (nil for none) of
// the file called name. A flag that may be repeated gets its values from a list in the file, or from a comma-separated
// list in the environment. Flags in except are not changed. A key of the file, or a variable with the prefix, that is none of
// them is an error. Errors are *hint.Error; those about the file as a whole wrap ErrFile.
func Fill(flags *pflag.FlagSet, prefix string, env map[string]string, name string, text []byte, except ...string) error {
	values, err := parse(name, text)
	if err != nil {
		return err
	}
	for _, e := range except {
		delete(values, e)
	}
	if err := unknownKey(flags, name, values, except); err != nil {
		return err
	}
	if err := unknownVariable(flags, prefix, env, except); err != nil {
		return err
	}
	var first error
	flags.VisitAll(func(f *pflag.Flag) {
		if first != nil || f.Changed || slices.Contains(except, f.Name) {
			return
		}
		variable := variable(prefix, f.Name)
		if v, ok := env[variable]; ok && !isServiceLink(variable, v) {
			first = set(f, "environment variable "+variable, strings.Split(v, ","))
		} else if v, ok := values[f.Name]; ok {
			first = set(f, f.Name+" in "+name, v)
		}
	})
	return first
}

// parse parses a YAML mapping of keys to scalars or lists of scalars.
func parse(name string, text []byte) (map[string][]string, error) {
	var doc map[string]yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, refuseFile("%s is %w: %s", name, ErrFile, plainYAML(err))
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
					return nil, refuseFile("the key %q in %s has neither a value nor a list of values", key, name)
				}
				list = append(list, item.Value)
			}
			values[key] = list
		default:
			return nil, refuseFile("the key %q in %s has neither a value nor a list of values", key, name)
		}
	}
	return values, nil
}

// goType is how package yaml names the type of the result, which the author of a file does not know.
var goType = regexp.MustCompile(`cannot unmarshal (\S+) (.*)into \S+`)

// plainYAML returns the text of an error of package yaml for people, on one line.
func plainYAML(err error) string {
	text := strings.Join(strings.Fields(strings.ReplaceAll(err.Error(), "yaml: ", "")), " ")
	text = strings.TrimPrefix(text, "unmarshal errors: ")
	return goType.ReplaceAllString(text, "${2}is not a mapping")
}

// unknownKey returns an error for the first key, in alphabetical order, that is not the name of a flag.
func unknownKey(flags *pflag.FlagSet, name string, values map[string][]string, except []string) error {
	var known []string
	flags.VisitAll(func(f *pflag.Flag) {
		if !slices.Contains(except, f.Name) {
			known = append(known, f.Name)
		}
	})
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if slices.Contains(known, key) {
			continue
		}
		advice := "The keys of the file are the flags of \"weft up\", without dashes before them."
		if key == "peer" || key == "peers" {
			advice = "Peers are arguments, as in \"weft up host1\", and not in the file."
		} else if near, ok := suggest.Nearest(key, known); ok {
			advice = "Did you mean " + near + "? " + advice
		}
		return hint.New(hint.Usage, advice, "unknown key %q in %s", key, name)
	}
	return nil
}

// set gives a flag values from source, such as "environment variable WEFT_MTU" or "mtu in FILE".
func set(f *pflag.Flag, source string, values []string) error {
	text := strings.Join(values, ",")
	list, ok := f.Value.(pflag.SliceValue)
	var err error
	if ok {
		err = list.Replace(values)
	} else {
		err = f.Value.Set(text)
	}
	if err != nil {
		return usage.InvalidValue(f, text, source, err)
	}
	f.Changed = true
	return nil
}

// refuseFile returns an error about the form of the file.
func refuseFile(format string, args ...any) error {
	return hint.New(hint.Usage, "Write a line KEY: VALUE for each flag, such as \"mtu: 1400\".", format, args...)
}
