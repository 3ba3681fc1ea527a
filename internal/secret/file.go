package secret

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime/debug"
	"syscall"

	"golang.org/x/sys/unix"

	"weft/internal/hint"
)

// maxFile is the size of the largest secret file in bytes.
const maxFile = 64 << 10

// openToOthers are the permissions that a secret file must not have. The group may read it: Kubernetes gives the files of
// a Secret to the pod's group.
const openToOthers fs.FileMode = 0o027

// ReadFile reads and parses the secret file at path. It refuses a file that other users own, can read or can write. Errors are
// *hint.Error about --secret-file.
func ReadFile(path string) ([]Secret, error) {
	text, err := readPrivate(path)
	if err != nil {
		return nil, err
	}
	secrets, err := Parse(text)
	if err != nil {
		return nil, refuse(path, remedy(err), "%w", err)
	}
	debug.FreeOSMemory() // a passphrase needs 64 MiB for its key, which the process would otherwise hold for minutes
	return secrets, nil
}

// readPrivate reads a file that other users neither own nor can read. The path may be a link: the opened file is checked.
func readPrivate(path string) (text []byte, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a FIFO without a writer must not block
	if err != nil {
		return nil, refuse(path, "Create it with \"weft secret generate\", the same on every node, or name the existing one.", "%w", cause(err))
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, refuse(path, "Name a file that can be read.", "%w", cause(err))
	case !info.Mode().IsRegular():
		return nil, refuse(path, "Name a file with a secret in it.", "not a regular file")
	case !trusted(info):
		return nil, refuse(path, "Make root its owner (chown root), and replace the secret if another user has written it.",
			"another user than root and that of this process owns it")
	case info.Mode().Perm()&openToOthers != 0:
		return nil, refuse(path, "Make it mode 0600 (chmod 600), and replace the secret if another user may have read it.",
			"other users can read or write it: mode %#o", info.Mode().Perm())
	}
	text, err = io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return nil, refuse(path, "Name a file that can be read.", "%w", cause(err))
	case len(text) > maxFile:
		return nil, refuse(path, "Name a file with one secret a line.", "larger than %d bytes", maxFile)
	}
	return text, nil
}

// trusted reports whether root or the user of this process owns a file: its owner can read and change it whatever its mode.
func trusted(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && (stat.Uid == 0 || int(stat.Uid) == os.Geteuid())
}

func refuse(path, advice, format string, args ...any) *hint.Error {
	return hint.Refuse("--secret-file", advice, "%s: %w", path, fmt.Errorf(format, args...))
}

// cause strips the wrapping off a system call's error: the path is in the message already.
func cause(err error) error {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno
	}
	return err
}

// remedy returns the hint for an error of Parse.
func remedy(err error) string {
	switch {
	case errors.Is(err, ErrTooShort):
		return fmt.Sprintf("Make that line a passphrase of %d characters or more, or use a line of \"weft secret generate\".", MinPassphrase)
	case errors.Is(err, ErrTooMany), errors.Is(err, ErrTwice):
		return "Remove the lines that are not needed: two are enough to replace one secret by another."
	case errors.Is(err, ErrComment):
		return "Remove that line, or begin the passphrase with another character."
	case errors.Is(err, ErrMalformed):
		return "Copy the whole line as \"weft secret generate\" printed it."
	default:
		return "Write the output of \"weft secret generate\" into it, the same on every node."
	}
}
