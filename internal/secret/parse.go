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
	// MaxSecrets is the maximum number of secrets in a file. A rotation needs two; the rest is reserve.
	MaxSecrets = 8
	// MinPassphrase is the minimum length of a passphrase, in characters.
	MinPassphrase = 16
)

// Errors that the errors of Parse wrap. An error about a line contains its number, and nothing of its text.
var (
	ErrEmpty     = errors.New("no secret in it")
	ErrNotUTF8   = errors.New("not UTF-8 text")
	ErrTooMany   = fmt.Errorf("more than %d secrets", MaxSecrets)
	ErrTooShort  = fmt.Errorf("a passphrase of less than %d characters", MinPassphrase)
	ErrMalformed = errors.New("starts like a generated secret, but is truncated or mistyped")
	ErrTwice     = errors.New("the same secret as in an earlier line")
	ErrComment   = errors.New("starts with #, and a secret file cannot have comments")
)

// byteOrderMark is written by some editors before the first line. Without special handling it would become part of
// a passphrase.
const byteOrderMark = "\ufeff"

// Parse parses the text of a secret file: one secret per line. White space around a secret and blank lines are ignored.
// A line is the output of Generate, or a passphrase. Deriving the key of a passphrase takes a tenth of a second and,
// while it runs, 64 MiB of memory. The order of the lines is kept: the first secret is the preferred one.
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

// line is a valid line: a generated secret, or a passphrase if master is nil.
type line struct {
	master     *[Size]byte
	passphrase string
}

// split parses and checks the lines without deriving keys from passphrases, which is expensive.
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
	if strings.HasPrefix(s, "#") { // a comment taken for a passphrase would be easy to guess
		return line{}, ErrComment
	}
	encoded, generated := strings.CutPrefix(s, prefix)
	if !generated {
		if utf8.RuneCountInString(s) < MinPassphrase {
			return line{}, ErrTooShort
		}
		return line{passphrase: s}, nil
	}
	// Do not wrap the decoder's error: it may repeat a part of the secret.
	raw, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSpace(encoded))
	if err != nil || len(raw) != Size {
		return line{}, ErrMalformed
	}
	return line{master: (*[Size]byte)(raw)}, nil
}

// contains reports whether lines has the same secret as l.
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
