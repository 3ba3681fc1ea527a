package main

import (
	"io"
	"os"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"weft/internal/settings"
)

// TestExampleConfiguration: the configuration file that packages install lists every flag of "weft up". It shows the
// default value, except in sections that say "An example:".
func TestExampleConfiguration(t *testing.T) {
	text, err := os.ReadFile("../../deploy/systemd/weft.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var presets, examples strings.Builder
	into := &presets
	for line := range strings.Lines(string(text)) {
		setting, commented := strings.CutPrefix(line, "#")
		switch {
		case line == "\n":
			into = &presets
		case commented && !strings.HasPrefix(setting, " ") && setting != "\n":
			into.WriteString(setting)
		case strings.Contains(line, "An example:"):
			into = &examples
		case !commented:
			t.Errorf("%q is not a comment: the installed file must leave all defaults in effect", line)
		}
	}
	fill := func(text string) *pflag.FlagSet {
		flags := newUpCommand(&env{stdout: io.Discard, stderr: io.Discard}).Flags()
		if err := settings.Fill(flags, envPrefix, nil, "weft.yaml", []byte(text), "config", "help"); err != nil {
			t.Fatal(err)
		}
		return flags
	}
	defaults, others := fill(presets.String()), fill(examples.String())
	defaults.VisitAll(func(f *pflag.Flag) {
		switch {
		case f.Name == "config" || f.Name == "help":
		case !f.Changed && !others.Lookup(f.Name).Changed:
			t.Errorf("%s is not in the file", f.Name)
		case f.Changed && f.Value.String() != f.DefValue:
			t.Errorf("%s is %s in the file, %s by default", f.Name, f.Value, f.DefValue)
		}
	})
}
