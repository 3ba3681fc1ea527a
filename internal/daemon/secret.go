package daemon

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"weft/internal/secret"
	"weft/mesh"
	"weft/router/session"
)

// maxSecretFile is the size of the largest secret file in bytes.
const maxSecretFile = 64 << 10

// openToOthers are the permissions that a secret file must not have. The group may read it: Kubernetes gives the
// files of a secret to the pod's group.
const openToOthers fs.FileMode = 0o027

// loadSecrets reads the secret file; without one there are none. Its errors are Refusals.
func (c *Config) loadSecrets() ([]secret.Secret, error) {
	if c.SecretFile == "" {
		return nil, nil
	}
	text, err := readSecretFile(c.SecretFile)
	if err != nil {
		return nil, err
	}
	secrets, err := secret.Parse(text)
	if err != nil {
		return nil, refuseSecret(c.SecretFile, secretHint(err), "%w", err)
	}
	debug.FreeOSMemory() // a passphrase took 64 MiB, which would stay with the process for minutes
	return secrets, nil
}

// readSecretFile reads a file that others cannot. It may be a link: what counts is the file that is opened.
func readSecretFile(path string) (text []byte, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a FIFO that nobody writes to must not hold it up
	if err != nil {
		return nil, refuseSecret(path, "Make it with \"weft secret generate\", the same on every node, or name the one that there is.", "%w", rootCause(err))
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, refuseSecret(path, "Name a file that can be read.", "%w", rootCause(err))
	case !info.Mode().IsRegular():
		return nil, refuseSecret(path, "Name a file with a secret in it.", "not a regular file")
	case info.Mode().Perm()&openToOthers != 0:
		return nil, refuseSecret(path, "Make it mode 0600 (chmod 600), and its secret a new one if somebody may have read it.",
			"others than its owner can get at it: mode %#o", info.Mode().Perm())
	}
	text, err = io.ReadAll(io.LimitReader(f, maxSecretFile+1))
	switch {
	case err != nil:
		return nil, refuseSecret(path, "Name a file that can be read.", "%w", rootCause(err))
	case len(text) > maxSecretFile:
		return nil, refuseSecret(path, "Name a file with a secret in it, a line each.", "larger than %d bytes", maxSecretFile)
	}
	return text, nil
}

// refuseSecret returns a Refusal of the secret file at path.
func refuseSecret(path, hint, format string, args ...any) *Refusal {
	return refuse("--secret-file", hint, "%s: %w", path, fmt.Errorf(format, args...))
}

// secretHint returns the mend for an error of secret.Parse.
func secretHint(err error) string {
	switch {
	case errors.Is(err, secret.ErrTooShort):
		return fmt.Sprintf("Make that line a passphrase of %d characters or more, or take one of \"weft secret generate\".", secret.MinPassphrase)
	case errors.Is(err, secret.ErrTooMany), errors.Is(err, secret.ErrTwice):
		return "Remove the lines that are not needed: two are enough to replace one secret by another."
	case errors.Is(err, secret.ErrComment):
		return "Remove that line, or begin the passphrase with another character."
	case errors.Is(err, secret.ErrMalformed):
		return "Copy the whole line as \"weft secret generate\" printed it."
	default:
		return "Put what \"weft secret generate\" prints into it, the same on every node."
	}
}

// applySecrets takes secrets in place of those in use: one or more, where the node was started with some.
func (d *Daemon) applySecrets(list []secret.Secret) error {
	before := d.secrets.Swap(&list)
	d.syncSecrets() // before the others hear that this node takes them
	err := d.mesh.SetKeys(gossipKeys(list))
	if err != nil {
		d.secrets.Store(before)
		d.syncSecrets()
	}
	return err
}

// syncSecrets takes the secrets in use to the router.
func (d *Daemon) syncSecrets() {
	if p := d.plane.Load(); p != nil {
		p.router.SetSecrets(sessionSecrets(d.secretList()))
	}
}

// sealed reports whether this node has a secret. It stays so for as long as the node runs.
func (d *Daemon) sealed() bool { return len(d.secretList()) > 0 }

// secretList returns the secrets in use, none where the node has none. The slice must not be changed.
func (d *Daemon) secretList() []secret.Secret {
	if list := d.secrets.Load(); list != nil {
		return *list
	}
	return nil
}

// gossipKeys returns secrets as the mesh takes them.
func gossipKeys(list []secret.Secret) []mesh.GossipKey {
	keys := make([]mesh.GossipKey, 0, len(list))
	for _, s := range list {
		keys = append(keys, mesh.GossipKey{Key: s.GossipKey(), Fingerprint: s.Fingerprint()})
	}
	return keys
}

// sessionSecrets returns secrets as the router takes them.
func sessionSecrets(list []secret.Secret) []session.Secret {
	secrets := make([]session.Secret, 0, len(list))
	for _, s := range list {
		secrets = append(secrets, session.Secret{Key: s.SessionKey(), Fingerprint: s.Fingerprint()})
	}
	return secrets
}

// rotation says how far a change of secrets is: which nodes cannot open the first one yet, by name, and whether the
// others may be dropped.
func rotation(secrets []secret.Secret, members []mesh.Member) (behind []string, droppable bool) {
	if len(secrets) < 2 {
		return nil, false
	}
	first := secrets[0].Fingerprint()
	for _, m := range members {
		if isLivePeer(m) && !slices.Contains(m.Accepts, first) {
			behind = append(behind, fmt.Sprintf("%s (%s)", m.Name, m.Addr))
		}
	}
	return behind, len(behind) == 0
}

// secretWarnings returns what an operator should know of the secrets.
func (d *Daemon) secretWarnings(members []mesh.Member) []string {
	secrets := d.secretList()
	var warnings []string
	if len(secrets) == 0 {
		warnings = append(warnings, "The traffic is not encrypted: whoever is on its path reads it, and whoever reaches the gossip port can "+
			"join. Make a secret with \"weft secret generate\" and start every node with it in a --secret-file.")
	}
	if behind, _ := rotation(secrets, members); len(behind) > 0 {
		warnings = append(warnings, fmt.Sprintf("The first line of the secret file is not in use yet: %s cannot open it. Put it into their "+
			"--secret-file too, and \"weft reload\" them.", strings.Join(behind, ", ")))
	}
	for _, s := range d.mesh.KeyMismatches() {
		warnings = append(warnings, fmt.Sprintf("A node at %s %s, and is kept out: %s.", s.Addr, s.Reason, s.Reason.Remedy()))
	}
	return warnings
}
