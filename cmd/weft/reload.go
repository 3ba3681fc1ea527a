package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"weft/internal/api"
	"weft/internal/settings"
	"weft/internal/usage"
)

func newReloadCommand(e *env) *cobra.Command {
	return e.addJSONFlag(&cobra.Command{
		Use:   "reload",
		Short: "Make the daemon read its secret file, identity and configuration again",
		Long: "Make the daemon read its secret file, its identity file and its configuration again, as SIGHUP does. The lines of\n" +
			"the secret file, --identity, --trusted-subnets and --log-level take effect immediately. Other changed flags are\n" +
			"listed: they take effect at the next start, also the first secret, which changes the MTU of all pods and which nodes\n" +
			"are admitted. If a setting is wrong, nothing changes and the exit code is 1.",
		Args: usage.Arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := e.client().Reload(cmd.Context())
			if err != nil {
				return err
			}
			return e.show(r, func(w io.Writer) { writeReload(w, r) })
		},
	})
}

func writeReload(w io.Writer, r api.Reload) {
	line := func(what string, flags []string) {
		if len(flags) > 0 {
			_, _ = fmt.Fprintf(w, "%s: %s\n", what, strings.Join(flags, " "))
		}
	}
	line("applied", r.Applied)
	line("takes effect at the next start", r.Restart)
	if len(r.Applied)+len(r.Restart) == 0 {
		_, _ = fmt.Fprintln(w, "nothing has changed")
	}
	_, _ = fmt.Fprintf(w, "secrets in use: %d\n", r.Secrets)
	if !r.Encrypted {
		_, _ = fmt.Fprintln(w, "The traffic is not encrypted: to turn encryption on, restart every node with --secret-file.")
	}
}

// commandLine is a parsed command line of "weft up": the flags that were set, with their values, and the PEERs.
type commandLine struct {
	flags map[string][]string
	peers []string
}

// recordCommandLine returns the command line that flags were parsed from. Call it before the environment or the file sets
// flags.
func recordCommandLine(flags *pflag.FlagSet, peers []string) commandLine {
	c := commandLine{flags: make(map[string][]string), peers: peers}
	flags.Visit(func(f *pflag.Flag) {
		if list, ok := f.Value.(pflag.SliceValue); ok {
			c.flags[f.Name] = list.GetSlice()
			return
		}
		c.flags[f.Name] = []string{f.Value.String()}
	})
	return c
}

// Read implements node.Configuration: it evaluates the command line, the environment, and the current contents of the file.
func (c commandLine) Read() (settings.Config, error) {
	o := &upOptions{}
	flags := pflag.NewFlagSet("up", pflag.ContinueOnError)
	o.addFlags(flags)
	for name, values := range c.flags {
		f := flags.Lookup(name)
		if f == nil {
			continue // a flag of cobra, such as --help
		}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			if err := list.Replace(values); err != nil {
				return settings.Config{}, err
			}
			f.Changed = true
		} else if err := flags.Set(name, values[0]); err != nil {
			return settings.Config{}, err
		}
	}
	o.Peers = c.peers
	err := o.evaluate(flags)
	return o.Config, err
}
