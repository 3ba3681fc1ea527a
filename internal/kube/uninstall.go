package kube

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"weft/internal/hint"
)

// RestoreSettings gives the kernel's settings that Prepare has changed since the boot their former values, unless another program has
// changed them since. stateDir is the daemon's state directory.
func RestoreSettings(stateDir string, log *slog.Logger) error {
	restored, err := hostSysctls.restore(filepath.Join(stateDir, "kube"))
	if len(restored) > 0 {
		log.Info("former kernel settings restored", "settings", restored)
	}
	return err
}

// RefuseRunning returns an error if a program accepts connections on the daemon's socket: a daemon that runs would make again what is
// removed. The error is a *hint.Error.
func RefuseRunning(socket string) error {
	if conn, err := net.DialTimeout("unix", socket, callTimeout); err == nil {
		_ = conn.Close()
		return hint.Refuse("--host", "Run \"weft leave\", or stop the daemon.", "the daemon at %s still runs", socket)
	}
	return nil
}

// stateNames are entries that a state directory has one of.
var stateNames = []string{"node.key", "ipam.db", "kube.yaml", "kube"}

// RemoveStateDir removes the daemon's state directory. A missing one is no error. It refuses a folder that is none: its path may be wrong.
// The error is a *hint.Error then.
func RemoveStateDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("kube: %w", err)
	}
	if len(entries) > 0 && !slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return slices.Contains(stateNames, e.Name()) }) {
		return hint.Refuse("--state-dir", "Name the folder of the daemon.", "%s is no state directory: it has none of %s", dir,
			strings.Join(stateNames, ", "))
	}
	return RemoveFolder(dir)
}

// RemoveFolder removes a folder with its content, of a mount point only the content. A missing one is no error.
func RemoveFolder(dir string) error {
	if err := os.RemoveAll(dir); err != nil && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("kube: %w", err)
	}
	return nil
}

// RemoveReferences removes the reference plugins that Plugins has copied: those that equal the ones beside Plugin, unless another
// configuration in ConfDir names them.
func (i *Install) RemoveReferences() error {
	var errs []error
	for _, name := range referencePlugins {
		ours, err := os.ReadFile(filepath.Join(filepath.Dir(i.Plugin), name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		path := filepath.Join(i.BinDir, name)
		installed, readErr := os.ReadFile(path)
		if errors.Is(readErr, fs.ErrNotExist) || err == nil && readErr == nil && (!bytes.Equal(ours, installed) || i.othersName(name)) {
			continue
		}
		if err = errors.Join(err, readErr); err == nil {
			err = os.Remove(path)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("kube: %w", err))
		}
	}
	return errors.Join(errs...)
}

// othersName reports whether a configuration of another network names a plugin.
func (i *Install) othersName(plugin string) bool {
	files, _ := filepath.Glob(filepath.Join(i.ConfDir, "*.conf*")) // the pattern is valid
	return slices.ContainsFunc(files, func(path string) bool {
		text, err := os.ReadFile(path)
		return filepath.Base(path) != ConflistName && (err != nil || bytes.Contains(text, []byte(`"`+plugin+`"`)))
	})
}
