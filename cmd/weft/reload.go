package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"weft/internal/api"
	"weft/internal/daemon"
)

func newReloadCommand(e *env) *cobra.Command {
	return e.addJSONFlag(&cobra.Command{
		Use:   "reload",
		Short: "Have the daemon read its secret file and configuration again",
		Long: "Have the daemon read its secret file and configuration again, as SIGHUP does. The lines of the secret file,\n" +
			"--trusted-subnets and --log-level take effect at once; of what else has changed it is said that it does so at\n" +
			"the next start. Where something is wrong nothing changes, and the exit code is 1.",
		Args: between(0, 0),
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
}

// given is a command line of "weft up": its flags with their values, and the PEERs.
type given struct {
	flags map[string][]string
	peers []string
}

// recordGiven returns the command line that flags were parsed from; it is called before anything else sets one.
func recordGiven(flags *pflag.FlagSet, peers []string) given {
	g := given{flags: make(map[string][]string), peers: peers}
	flags.Visit(func(f *pflag.Flag) {
		if list, ok := f.Value.(pflag.SliceValue); ok {
			g.flags[f.Name] = list.GetSlice()
			return
		}
		g.flags[f.Name] = []string{f.Value.String()}
	})
	return g
}

// config evaluates the configuration: the command line, the environment, and the file as it is now.
func (g given) config() (daemon.Config, error) {
	o := &upOptions{}
	flags := pflag.NewFlagSet("up", pflag.ContinueOnError)
	o.addFlags(flags)
	for name, values := range g.flags {
		f := flags.Lookup(name)
		if f == nil {
			continue // --help, say: cobra's own
		}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			if err := list.Replace(values); err != nil {
				return daemon.Config{}, err
			}
			f.Changed = true
		} else if err := flags.Set(name, values[0]); err != nil {
			return daemon.Config{}, err
		}
	}
	o.Peers = g.peers
	err := o.evaluate(flags)
	return o.Config, err
}

// reread is config with errors that the client of the API sees with their mend.
func (g given) reread() (daemon.Config, error) {
	cfg, err := g.config()
	if err != nil {
		_, hint := classify(err)
		return cfg, &api.Problem{Kind: api.KindRefused, Detail: err.Error(), Hint: hint}
	}
	return cfg, nil
}
