package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"weft/internal/cadir"
	"weft/internal/hint"
	"weft/internal/identity"
	"weft/internal/usage"
)

const (
	// defaultCADir is the folder of the CA without --dir.
	defaultCADir = "weft-ca"
	// defaultExpiry is how long a certificate is valid without --expires.
	defaultExpiry = 90 * 24 * time.Hour
	// maxRequest is the size of the largest request that is read.
	maxRequest = 4096
)

func newCACommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ca",
		Short: "Make a CA, and sign identities of nodes with it",
	}
	cmd.AddCommand(newCAInitCommand(e), newCASignCommand(e))
	return cmd
}

func newCAInitCommand(e *env) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make a CA in a new folder",
		Long: "Make a CA in a new folder. Its owner admits nodes to the network (\"weft ca sign\") and shuts them out (\"weft\n" +
			"revoke\"), so keep it on a host that runs no pods, and make a backup of it. The command prints the public line of\n" +
			"the CA.",
		Example: "  weft ca init --dir /root/weft-ca",
		Args:    usage.Arguments(0, 0),
		RunE: func(*cobra.Command, []string) error {
			d, err := cadir.Init(dir)
			if err != nil {
				return err
			}
			defer d.Close()
			_, err = fmt.Fprintln(e.stdout, d.Key())
			return err
		},
	}
	addCADirFlag(cmd, &dir)
	return cmd
}

func addCADirFlag(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "dir", defaultCADir, "`folder` of the CA")
}

// signOptions holds the flags of "weft ca sign".
type signOptions struct {
	dir       string
	name      string
	named     bool // --name was given, also if it is empty
	addresses []string
	expires   time.Duration
}

func newCASignCommand(e *env) *cobra.Command {
	o := signOptions{}
	cmd := &cobra.Command{
		Use:                   "sign REQUEST|- [flags]",
		DisableFlagsInUseLine: true,
		Short:                 "Sign the request of a node, and print its identity file",
		Long: "Sign the request of a node, and print its identity file, for \"weft up --identity\". REQUEST is the line that\n" +
			"\"weft identity request\" prints on the node, a file with that line, or - for standard input. The certificate requires\n" +
			"the name in the request, unless --name says otherwise. It proves nothing about the sender: get the line over a\n" +
			"channel that you trust, such as SSH.",
		Example: "  ssh host1 weft identity request | weft ca sign - > host1.identity\n" +
			"  ssh host1 weft identity request | weft ca sign - --addresses 192.0.2.0/24 --expires 720h > host1.identity",
		Args: usage.Arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.named = cmd.Flags().Changed("name")
			return signRequest(cmd.Context(), e, cmd.InOrStdin(), args[0], o)
		},
	}
	addCADirFlag(cmd, &o.dir)
	cmd.Flags().StringVar(&o.name, "name", "", "`nickname` that the node must have; empty: any (default: that of the request)")
	cmd.Flags().StringSliceVar(&o.addresses, "addresses", nil,
		"underlay addresses (`CIDRs`, at most 4) at which the node may be (default: any)")
	cmd.Flags().DurationVar(&o.expires, "expires", defaultExpiry, "`duration` for which the certificate is valid")
	return cmd
}

func signRequest(ctx context.Context, e *env, stdin io.Reader, from string, o signOptions) error {
	request, err := readRequest(stdin, from)
	if err != nil {
		return err
	}
	if o.expires < time.Minute {
		return hint.Refuse("--expires", "Give a duration such as 2160h, which is 90 days.", "%s is too short", o.expires)
	}
	now := time.Now()
	terms := identity.Terms{NotBefore: now, NotAfter: now.Add(o.expires), Name: request.Name}
	if o.named {
		terms.Name = o.name
	}
	if terms.Addresses, err = parsePrefixes("addresses", o.addresses); err != nil {
		return err
	}
	d, err := cadir.Open(ctx, o.dir)
	if err != nil {
		return err
	}
	defer d.Close()
	file, err := d.Sign(request, terms, now)
	if err != nil {
		return err
	}
	until := terms.NotAfter.UTC().Format(time.RFC3339)
	_, err = fmt.Fprintf(e.stdout, "# %s (%s), valid until %s\n%s", request.Name, request.ID(), until, file)
	return err
}

// readRequest returns the request on a command line: the line itself, a file, or - for standard input.
func readRequest(stdin io.Reader, from string) (identity.Request, error) {
	text := from
	if !strings.HasPrefix(from, identity.RequestPrefix) {
		in := stdin
		if from != "-" {
			f, err := os.Open(from)
			if err != nil {
				return identity.Request{}, hint.New(hint.Usage, "Give the line that \"weft identity request\" prints, a file with it, or -.", "%w", err)
			}
			defer f.Close()
			in = f
		}
		read, err := io.ReadAll(io.LimitReader(in, maxRequest))
		if err != nil {
			return identity.Request{}, fmt.Errorf("reading the request: %w", err)
		}
		text = string(read)
	}
	request, err := identity.ParseRequest(text)
	if err != nil {
		return identity.Request{}, hint.New(hint.Usage, "Copy the whole line that \"weft identity request\" prints on the node.", "%w", err)
	}
	return request, nil
}
