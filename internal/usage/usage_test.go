package usage

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"weft/internal/hint"
)

// program returns a program with some commands and flags of all types.
func program() *cobra.Command {
	root := &cobra.Command{Use: "prog"}
	nothing := func(*cobra.Command, []string) error { return nil }
	show := &cobra.Command{Use: "show THING", Args: Arguments(1, 1), RunE: nothing}
	show.Flags().Int("count", 0, "")
	show.Flags().Duration("timeout", time.Second, "")
	show.Flags().Bool("json", false, "")
	show.Flags().IntSlice("sizes", nil, "")
	show.Flags().StringSlice("names", nil, "")
	show.Flags().StringP("write", "w", "", "")
	group := &cobra.Command{Use: "group"}
	group.AddCommand(&cobra.Command{Use: "list", Args: Arguments(0, 0), RunE: nothing})
	move := &cobra.Command{Use: "move FROM TO [MORE]", Args: Arguments(2, 3), RunE: nothing}
	add := &cobra.Command{Use: "add THING...", Args: Arguments(1, -1), RunE: nothing}
	join := &cobra.Command{Use: "join", Args: None(func(arg string) string { return "Did you mean --pod " + arg + "?" }), RunE: nothing}
	root.AddCommand(show, group, move, add, join)
	root.InitDefaultCompletionCmd()
	Prepare(root)
	return root
}

// TestMistakes: each mistake in a command line names what was written, and one fix, and has exit code 2.
func TestMistakes(t *testing.T) {
	const commands, flags = `"prog --help" lists the commands.`, `"prog show --help" lists the flags.`
	for _, tt := range []struct{ line, want, hint string }{
		{"shwo x", `"shwo" is not a command of prog`, `Did you mean "prog show"? ` + commands},
		{"zebra", `"zebra" is not a command of prog`, commands},
		{"list", `"list" is not a command of prog`, `Did you mean "prog group list"? ` + commands},
		{"group lst", `"lst" is not a command of prog group`, `Did you mean "prog group list"? "prog group --help" lists the commands.`},
		{"help shwo", `"shwo" is not a command of prog`, `Did you mean "prog show"? ` + commands},
		{
			"completion bsh", `"bsh" is not a command of prog completion`,
			`Did you mean "prog completion bash"? "prog completion --help" lists the commands.`,
		},
		{"completion bash x", `prog completion bash takes no arguments, and has "x"`, "Usage: prog completion bash"},
		{"show", "prog show needs 1 argument, and has none", "Usage: prog show THING [flags]"},
		{"show a b c", `prog show takes 1 argument, and has also "b" "c"`, "Usage: prog show THING [flags]"},
		{"move a", "prog move needs 2 to 3 arguments, and has 1 argument", "Usage: prog move FROM TO [MORE] [flags]"},
		{"add", "prog add needs at least 1 argument, and has none", "Usage: prog add THING... [flags]"},
		{"join p", `prog join takes no arguments, and has "p"`, "Did you mean --pod p?"},
		{"show x --cuont 1", "prog show has no flag --cuont", "Did you mean --count? " + flags},
		{"show x --zebra", "prog show has no flag --zebra", flags},
		{"show x -count 1", "prog show has no flag -count", "Did you mean --count? " + flags},
		{"show x -count=1", "prog show has no flag -count", "Did you mean --count? " + flags},
		{"show x --count", "--count: it has no value", `Write a value after it. "prog show --help" describes it.`},
		{"show x -w", "--write: it has no value", `Write a value after it. "prog show --help" describes it.`},
		{"show x --count abc", `--count: "abc" is not a whole number`, "Write a number in digits, without a unit."},
		{"show x --count 1e9", `--count: "1e9" is not a whole number`, "Write a number in digits, without a unit."},
		{"show x --count 99999999999999999999", `--count: "99999999999999999999" is out of range`, "Write a smaller number."},
		{"show x --timeout 5", `--timeout: "5" is a duration without a unit`, "Write a unit after the number, such as 5s, 5m or 5h."},
		{"show x --timeout soon", `--timeout: "soon" is not a duration`, "Write a number and its unit, such as 30s, 5m or 2h."},
		{"show x --json=maybe", `--json: "maybe" is neither true nor false`, "Write the flag alone, or =true or =false after it."},
		{"show x --sizes 1,b", `--sizes: "1,b" is not a list of whole numbers`, "Write numbers in digits, separated by commas, such as 10,50."},
		{`show x --names a"b`, `--names: "a\"b" is not a list`, "Write values separated by commas, without quotes."},
		{"show x ---", `"---" is not a flag`, flags},
	} {
		root := program()
		root.SetArgs(strings.Fields(tt.line))
		root.SetOut(&bytes.Buffer{})
		var out bytes.Buffer
		if code := Exit(&out, "prog", root.Execute()); code != hint.ExitUsage {
			t.Errorf("prog %s: exit code %d", tt.line, code)
		}
		if want := fmt.Sprintf("prog: %s; hint: %s\n", tt.want, tt.hint); out.String() != want {
			t.Errorf("prog %s printed\n%swant\n%s", tt.line, out.String(), want)
		}
	}
}

func TestExit(t *testing.T) {
	for _, tt := range []struct {
		err  error
		code int
		want string
	}{
		{nil, hint.ExitDone, ""},
		{errors.New("ipam: broken"), hint.ExitFailed, "p: broken\n"},
		{hint.Refuse("--mtu", "Choose another.", "it is large"), hint.ExitUsage, "p: --mtu: it is large; hint: Choose another.\n"},
		{hint.New(hint.NoDaemon, "Start it.", "no daemon"), hint.ExitNoDaemon, "p: no daemon\nhint: Start it.\n"},
		{
			hint.Refuse("--state-dir", "Name another.", "%w", syscall.ENOSPC), hint.ExitUsage,
			"p: --state-dir: no space left on device; hint: Free space on the file system of the state directory, and try again.\n",
		},
		{errors.New("red\x1b[31m"), hint.ExitFailed, "p: red.[31m\n"},
	} {
		var out bytes.Buffer
		if code := Exit(&out, "p", tt.err); code != tt.code || out.String() != tt.want {
			t.Errorf("%v: exit code %d, printed %q; want %d, %q", tt.err, code, out.String(), tt.code, tt.want)
		}
	}
}

func TestLongValuesAreShortened(t *testing.T) {
	if got := Quote(strings.Repeat("x", 1000)); len(got) > 100 || !strings.HasSuffix(got, `…"`) {
		t.Errorf("%s", got)
	}
}
