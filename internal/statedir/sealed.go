package statedir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/google/renameio/v2"

	"weft/internal/hint"
)

// SealedFile is the file that says that a node has been protected. It contains the path of the file that protected the node,
// and no secret.
const SealedFile = "sealed"

// MarkSealed records in the state directory dir that the node is protected by the file at path. CheckSealed then refuses to run
// the node without protection. A relative path is made absolute: the next start may be in another folder. The directory must exist.
// Errors are *hint.Error.
func MarkSealed(dir, path string) error {
	if absolute, err := filepath.Abs(path); err == nil {
		path = absolute
	}
	if before, err := sealedBy(dir); err == nil && before == path {
		return nil
	}
	if err := renameio.WriteFile(filepath.Join(dir, SealedFile), []byte(path+"\n"), 0o600); err != nil {
		return hint.Refuse(flag, "Mount its file system for writing, or name another directory.", "%w", err)
	}
	return nil
}

// CheckSealed refuses a node that has been protected, is not protected any more, and is not said to be plain on purpose: a
// configuration without its secret must not become a network without encryption. A mark that cannot be read counts as one.
// Errors are *hint.Error.
func CheckSealed(dir string, protected, plain bool) error {
	if protected || plain {
		return nil
	}
	by, err := sealedBy(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, syscall.ENOTDIR):
		return hint.Refuse(flag, "Name a directory.", "%s is a file", dir)
	case err != nil:
		return hint.Refuse(flag, "Make it readable: it says whether this node may carry traffic without encryption.", "%w", err)
	}
	return RefusePlain(by)
}

// RefusePlain returns the error about a node that was protected by the file at path, and now is not.
func RefusePlain(path string) error {
	return hint.Refuse("--secret-file", "Name that file again, or set --plain if the traffic of this node may be read and forged.",
		"this node was protected by %s, and now its configuration names no such file", path)
}

// sealedBy returns the path in the mark.
func sealedBy(dir string) (string, error) {
	text, err := os.ReadFile(filepath.Join(dir, SealedFile))
	return strings.TrimSpace(string(text)), err
}
