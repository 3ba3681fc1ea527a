package cadir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"weft/internal/hint"
	"weft/internal/identity"
	"weft/internal/peer"
)

// issued is a certificate that the CA has signed: a line of the times, in RFC 3339, and the request.
type issued struct {
	at, until time.Time
	request   identity.Request
}

func (i issued) String() string {
	return fmt.Sprintf("%s %s %s", i.at.UTC().Format(time.RFC3339), i.until.UTC().Format(time.RFC3339), i.request)
}

func parseIssued(line string) (issued, error) {
	fields := strings.SplitN(line, " ", 3)
	if len(fields) < 3 {
		return issued{}, errors.New("a line without a request")
	}
	at, atErr := time.Parse(time.RFC3339, fields[0])
	until, untilErr := time.Parse(time.RFC3339, fields[1])
	request, err := identity.ParseRequest(fields[2])
	return issued{at, until, request}, errors.Join(atErr, untilErr, err)
}

// record appends a line for a certificate.
func (d *Dir) record(i issued) error {
	f, err := os.OpenFile(filepath.Join(d.path, issuedFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err == nil {
		_, err = fmt.Fprintln(f, i)
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err != nil {
		return hint.Refuse(flag, "Make the folder writable.", "%w", err)
	}
	return nil
}

// issued returns all certificates that the CA has signed, in order.
func (d *Dir) issued() (all []issued, err error) {
	path := filepath.Join(d.path, issuedFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, hint.Refuse(flag, "Run the command as the owner of the folder.", "%w", err)
	}
	for line := range strings.Lines(string(text)) {
		i, err := parseIssued(strings.TrimSpace(line))
		if err != nil {
			return nil, hint.Refuse(flag, "Restore the file from a backup, or remove the line.", "%s: %q: %w", path, line, err)
		}
		all = append(all, i)
	}
	return all, nil
}

// withoutExpired removes the entries of nodes of which all certificates have expired, by what was issued. Entries of nodes that are
// not recorded stay, as does that of keep. The clocks of nodes may be a day behind. If the folder is an old copy, a later certificate of
// the node is not recorded: it was issued before the revocation, and is assumed to be valid for as long as the longest one.
func (d *Dir) withoutExpired(entries []identity.Revocation, keep peer.ID, now time.Time) ([]identity.Revocation, error) {
	all, err := d.issued()
	if err != nil {
		return nil, err
	}
	until := map[peer.ID]time.Time{}
	var longest time.Duration
	for _, i := range all {
		longest = max(longest, i.until.Sub(i.at))
		if id := i.request.ID(); i.until.After(until[id]) {
			until[id] = i.until
		}
	}
	const clocks = 24 * time.Hour
	return slices.DeleteFunc(entries, func(e identity.Revocation) bool {
		last, recorded := until[e.ID]
		if lost := e.At.Add(longest); lost.After(last) {
			last = lost
		}
		return recorded && e.ID != keep && now.After(last.Add(clocks))
	}), nil
}
