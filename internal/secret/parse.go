package secret

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits of a secret file.
const (
	// MaxSecrets is how many lines a file may have: two for a rotation, and some to spare.
	MaxSecrets = 8
	// MinPassphrase is the length of the shortest passphrase, in characters.
	MinPassphrase = 16
)

// Errors that Parse's errors wrap. Those about a line name its number and nothing that is in it.
var (
	ErrEmpty     = errors.New("there is no secret in it")
	ErrNotUTF8   = errors.New("not UTF-8 text")
	ErrTooMany   = fmt.Errorf("more than %d secrets", MaxSecrets)
	ErrTooShort  = fmt.Errorf("a passphrase of less than %d characters", MinPassphrase)
	ErrMalformed = errors.New("starts like a generated secret, but was cut or mistyped")
	ErrTwice     = errors.New("the same secret as in a line before it")
	ErrComment   = errors.New("starts with #, and a secret file has no comments")
)

// byteOrderMark is what some editors put before the first line; it would be part of a passphrase.
const byteOrderMark = "\ufeff"

// Parse reads the text of a secret file: a secret a line, white space around it and blank lines ignored. A line is what
// Generate returns, or a passphrase, which costs a tenth of a second and 64 MiB of memory for the moment. The order is
// kept: the first secret is the preferred one.
func Parse(text []byte) ([]Secret, error) {
	lines, err := split(text)
	if err != nil {
		return nil, err
	}
	secrets := make([]Secret, 0, len(lines))
	for _, l := range lines {
		if l.master != nil {
			secrets = append(secrets, newSecret(*l.master))
		} else {
			secrets = append(secrets, fromPassphrase(l.passphrase))
		}
	}
	return secrets, nil
}

// line is a line that is well formed: a generated secret, or a passphrase where master is nil.
type line struct {
	master     *[Size]byte
	passphrase string
}

// split does all of Parse that is cheap.
func split(text []byte) ([]line, error) {
	if !utf8.Valid(text) {
		return nil, fmt.Errorf("secret: %w", ErrNotUTF8)
	}
	var lines []line
	number := 0
	for raw := range bytes.Lines(bytes.TrimPrefix(text, []byte(byteOrderMark))) {
		number++
		s := strings.TrimSpace(string(raw))
		if s == "" {
			continue
		}
		l, err := parseLine(s)
		if err == nil && contains(lines, l) {
			err = ErrTwice
		}
		if err == nil && len(lines) == MaxSecrets {
			err = ErrTooMany
		}
		if err != nil {
			return nil, fmt.Errorf("secret: line %d: %w", number, err)
		}
		lines = append(lines, l)
	}
	if len(lines) == 0 {
		return nil, fmt.Errorf("secret: %w", ErrEmpty)
	}
	return lines, nil
}

func parseLine(s string) (line, error) {
	if strings.HasPrefix(s, "#") { // or what everybody can guess would open the network
		return line{}, ErrComment
	}
	encoded, generated := strings.CutPrefix(s, prefix)
	if !generated {
		if utf8.RuneCountInString(s) < MinPassphrase {
			return line{}, ErrTooShort
		}
		return line{passphrase: s}, nil
	}
	// The decoder's own errors repeat what they do not like.
	raw, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSpace(encoded))
	if err != nil || len(raw) != Size {
		return line{}, ErrMalformed
	}
	return line{master: (*[Size]byte)(raw)}, nil
}

func contains(lines []line, l line) bool {
	for _, other := range lines {
		if l.master != nil && other.master != nil && *l.master == *other.master {
			return true
		}
		if l.master == nil && other.master == nil && l.passphrase == other.passphrase {
			return true
		}
	}
	return false
}
