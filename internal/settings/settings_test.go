package settings

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"weft/internal/hint"
)

// fill parses args and then calls Fill with an environment and a file.
func fill(t *testing.T, args []string, env map[string]string, file string) (*pflag.FlagSet, error) {
	t.Helper()
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	flags.Int("mtu", 0, "")
	flags.Int("port", 6783, "")
	flags.String("log-level", "info", "")
	flags.StringSlice("range", []string{"10.32.0.0/12"}, "")
	flags.Bool("no-discovery", false, "")
	flags.String("config", "", "")
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return flags, Fill(flags, "WEFT_", env, "weft.yaml", []byte(file), "config")
}

// hintOf returns the hint of an error.
func hintOf(err error) string {
	text, _ := hint.Of(err)
	return text
}

func TestPrecedence(t *testing.T) {
	file := "mtu: 1\nlog-level: file\nrange: [a, b]\nno-discovery: true\n"
	flags, err := fill(t, []string{"--mtu=3"}, map[string]string{"WEFT_MTU": "2", "WEFT_LOG_LEVEL": "env"}, file)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"mtu": "3", "log-level": "env", "range": "[a,b]", "no-discovery": "true"} {
		if got := flags.Lookup(name).Value.String(); got != want {
			t.Errorf("%s = %s, want %s", name, got, want)
		}
	}
}

// TestKeyThatWasMeant: an unknown key is not called another kind of file, and a key like it is named.
func TestKeyThatWasMeant(t *testing.T) {
	for key, want := range map[string]string{
		"rang": "Did you mean range? ", "MTU": "Did you mean mtu? ", "peers": "Peers are arguments, ", "zebra": "The keys ",
	} {
		_, err := fill(t, nil, nil, key+": x")
		if !strings.HasPrefix(hintOf(err), want) || errors.Is(err, ErrFile) {
			t.Errorf("%s: %v, hint %q; want %q", key, err, hintOf(err), want)
		}
	}
}

func TestListFromEnvironment(t *testing.T) {
	flags, err := fill(t, nil, map[string]string{"WEFT_RANGE": "a,b"}, "")
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := flags.GetStringSlice("range"); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("range = %v", got)
	}
}

func TestErrorsNameTheSetting(t *testing.T) {
	for _, tt := range []struct {
		name string
		env  map[string]string
		file string
		want string
	}{
		{"unknown key", nil, "mtus: 1400", `unknown key "mtus" in weft.yaml`},
		{"bad value in the file", nil, "mtu: many", `--mtu: "many" is not a whole number (mtu in weft.yaml)`},
		{
			"bad value in the environment", map[string]string{"WEFT_MTU": "x"}, "",
			`--mtu: "x" is not a whole number (environment variable WEFT_MTU)`,
		},
		{"like a key", nil, "rang: 10.0.0.0/8", `unknown key "rang" in weft.yaml`},
		{"not a mapping", nil, "- a", "not a YAML mapping"},
		{"nested", nil, "mtu: {a: b}", "has neither a value nor a list of values"},
		{"null", nil, "mtu:", "has neither a value nor a list of values"},
		{"broken", nil, "a: [", "not a YAML mapping"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := fill(t, nil, tt.env, tt.file)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
			if _, ok := errors.AsType[*hint.Error](err); !ok {
				t.Errorf("error %v is not a *hint.Error", err)
			}
		})
	}
}
