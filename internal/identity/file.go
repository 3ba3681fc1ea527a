package identity

import (
	"fmt"
	"slices"
	"strings"
)

// File is an identity file: the CAs that a node trusts, and the certificate that it shows. It is not secret.
type File struct {
	CAs         []CAKey // 1 to MaxCAs; the order is that of preference, as for secrets
	Certificate Certificate
}

// ParseFile reads an identity file: a line for each CA, and one for the certificate. Blank lines and those that start with # are
// ignored. Errors wrap ErrMalformed, and contain the number of the line.
func ParseFile(text string) (File, error) {
	var f File
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if err := f.add(line); err != nil {
			return File{}, fmt.Errorf("line %d: %w", number, err)
		}
	}
	switch {
	case len(f.CAs) == 0:
		return File{}, fmt.Errorf("%w: no line starts with %q", ErrMalformed, caPrefix)
	case f.Certificate.IsZero():
		return File{}, fmt.Errorf("%w: no line starts with %q", ErrMalformed, certificatePrefix)
	}
	return f, nil
}

// ParseCAs reads a file of CAs alone, as "weft ca init" writes it: a line for each, 1 to MaxCAs. Blank lines and those that start with
// # are ignored. Errors wrap ErrMalformed, and contain the number of the line.
func ParseCAs(text string) ([]CAKey, error) {
	var f File
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if err := f.add(line); err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		if !f.Certificate.IsZero() {
			return nil, fmt.Errorf("line %d: %w: a certificate in a file of CAs", number, ErrMalformed)
		}
	}
	if len(f.CAs) == 0 {
		return nil, fmt.Errorf("%w: no line starts with %q", ErrMalformed, caPrefix)
	}
	return f.CAs, nil
}

// add adds a line to the file.
func (f *File) add(line string) error {
	if !strings.HasPrefix(line, certificatePrefix+" ") {
		key, err := ParseCAKey(line)
		switch {
		case err != nil:
			return fmt.Errorf("%w, or with %q", err, certificatePrefix)
		case slices.Contains(f.CAs, key):
			return fmt.Errorf("%w: the same CA twice", ErrMalformed)
		case len(f.CAs) == MaxCAs:
			return fmt.Errorf("%w: more than %d CAs", ErrMalformed, MaxCAs)
		}
		f.CAs = append(f.CAs, key)
		return nil
	}
	if !f.Certificate.IsZero() {
		return fmt.Errorf("%w: a second certificate", ErrMalformed)
	}
	raw, err := decodeLine(line, certificatePrefix)
	if err != nil {
		return err
	}
	f.Certificate, err = ParseCertificate(raw)
	return err
}

// String returns the text of the file.
func (f File) String() string {
	var b strings.Builder
	for _, key := range f.CAs {
		fmt.Fprintln(&b, key)
	}
	fmt.Fprintln(&b, f.Certificate)
	return b.String()
}
