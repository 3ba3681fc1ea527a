package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"weft/internal/api"
	"weft/internal/cadir"
	"weft/internal/hint"
	"weft/internal/identity"
	"weft/internal/usage"
)

// revokeOptions holds the flags of "weft revoke".
type revokeOptions struct{ dir, out, list string }

func newRevokeCommand(e *env) *cobra.Command {
	o := revokeOptions{}
	cmd := e.addJSONFlag(&cobra.Command{
		Use:                   "revoke NODE [--dir DIR] [--out FILE] | --list FILE",
		DisableFlagsInUseLine: true,
		Short:                 "Shut a node out of the network, with the CA",
		Long: "Shut a node out of the network: sign the next list of revoked nodes with the CA in --dir, and hand it to the node\n" +
			"on this host, which sends it to all others. NODE is an ID, a name under which the CA has signed a certificate, or\n" +
			"a public key. If the CA is on a host without a node, write the list to a file with --out, and hand it to any node\n" +
			"with --list.\n\n" +
			"The other nodes end their sessions with the node within seconds, and replace the keys of gossip. Its addresses\n" +
			"stay reserved until \"weft reclaim\". A revoked key is never admitted again; a node that is sound again needs a new\n" +
			"one.",
		Example: "  weft revoke host7 --dir /root/weft-ca\n  weft revoke host7 --out list; scp list host1:; ssh host1 weft revoke --list list",
		Args:    usage.Arguments(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (len(args) == 1) == (o.list != "") {
				return hint.New(hint.Usage, "See \"weft revoke --help\".", "give either NODE or --list")
			}
			if o.list != "" {
				return handList(cmd.Context(), e, o.list)
			}
			return revoke(cmd.Context(), e, args[0], o)
		},
	})
	addCADirFlag(cmd, &o.dir)
	cmd.Flags().StringVar(&o.out, "out", "", "`file` to write the signed list to, instead of handing it to the node on this host")
	cmd.Flags().StringVar(&o.list, "list", "", "`file` with a signed list, to hand to the node on this host")
	return cmd
}

// revoke signs the next list, and hands it to the node on this host or writes it to a file.
func revoke(ctx context.Context, e *env, node string, o revokeOptions) error {
	d, err := cadir.Open(ctx, o.dir)
	if err != nil {
		return err
	}
	defer d.Close()
	var known identity.Revocations
	if o.out == "" {
		if known, err = knownList(ctx, e, d.Key()); err != nil {
			return err
		}
	}
	list, id, err := d.Revoke(node, known, time.Now())
	if err != nil {
		return err
	}
	if o.out != "" {
		if err := renameio.WriteFile(o.out, []byte(list.String()+"\n"), 0o644); err != nil {
			return hint.Refuse("--out", "Name a file that can be written.", "%w", err)
		}
		_, err := fmt.Fprintf(e.stdout, "revoked %s in version %d: hand %s to any node with \"weft revoke --list\"\n", id, list.Version, o.out)
		return err
	}
	return send(ctx, e, list)
}

// knownList returns the list of the CA that the node on this host has, so that no entry of it is lost if the folder of the CA is an
// old copy.
func knownList(ctx context.Context, e *env, ca identity.CAKey) (identity.Revocations, error) {
	lines, err := e.client().Revocations(ctx)
	if errors.Is(err, api.ErrNoDaemon) {
		return identity.Revocations{}, hint.New(hint.NoDaemon, "Start a node on this host, or use --out and hand the file to a node elsewhere.",
			"%w", err)
	}
	if err != nil {
		return identity.Revocations{}, err
	}
	for _, line := range lines.Lists {
		if list, err := identity.ParseRevocationsLine(line); err == nil && list.SignedBy(ca) {
			return list, nil
		}
	}
	return identity.Revocations{}, nil
}

// handList hands a signed list in a file to the node on this host.
func handList(ctx context.Context, e *env, path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return hint.Refuse("--list", "Name a file that \"weft revoke --out\" has written.", "%w", err)
	}
	list, err := identity.ParseRevocationsLine(string(text))
	if err != nil {
		return hint.Refuse("--list", "Copy the file that \"weft revoke --out\" has written.", "%w", err)
	}
	return send(ctx, e, list)
}

func send(ctx context.Context, e *env, list identity.Revocations) error {
	result, err := e.client().Revoke(ctx, api.RevocationsRequest{List: list.String()})
	if err != nil {
		return err
	}
	return e.show(result, func(w io.Writer) {
		if !result.Adopted {
			_, _ = fmt.Fprintf(w, "the node has version %d already\n", result.Version)
			return
		}
		_, _ = fmt.Fprintf(w, "version %d with %d revoked nodes is in force, and spreads to all nodes\n", result.Version, result.Nodes)
	})
}
