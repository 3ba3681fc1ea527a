package driver

import (
	"context"
	"debug/buildinfo"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Tools fetches third-party programs.
type Tools struct {
	// Dir is the folder for Go programs that are built. It is kept after the run.
	Dir string
	// NoFetch forbids fetching: only programs that are present are used.
	NoFetch bool
	// Out receives a line before each fetch, because a fetch may take minutes.
	Out io.Writer
}

// fetchTimeout bounds building or installing one program.
const fetchTimeout = 5 * time.Minute

// goTool returns the path of a Go program at a fixed version, and builds it if that version is missing.
func (t *Tools) goTool(ctx context.Context, name, pkg, version string) (string, error) {
	path, err := filepath.Abs(filepath.Join(t.Dir, name))
	if err != nil {
		return "", fmt.Errorf("driver: %w", err)
	}
	if builtVersion(path) == version {
		return path, nil
	}
	if t.NoFetch {
		return "", fmt.Errorf("driver: %s %s is not in %s, and fetching is disabled", name, version, t.Dir)
	}
	_, _ = fmt.Fprintf(t.Out, "building %s %s\n", pkg, version)
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "install", pkg+"@"+version)
	// Outside of this module, so that its flags and requirements do not apply.
	cmd.Dir = os.TempDir()
	cmd.Env = append(os.Environ(), "GOBIN="+filepath.Dir(path), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("driver: building %s: %w: %s", name, err, lastLine(string(out)))
	}
	return path, nil
}

// builtVersion returns the module version that a Go program was built from, or "".
func builtVersion(path string) string {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return ""
	}
	return info.Main.Version
}

// systemTool returns the path of a program of the distribution, and installs its Debian package if it is missing.
func (t *Tools) systemTool(ctx context.Context, name, pkg string) (string, error) {
	if path := find(name); path != "" {
		return path, nil
	}
	apt, err := exec.LookPath("apt-get")
	if err != nil || t.NoFetch {
		return "", fmt.Errorf("driver: %s is not installed", name)
	}
	_, _ = fmt.Fprintf(t.Out, "installing %s\n", pkg)
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, apt, "install", "-y", "-qq", "--no-install-recommends", pkg)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("driver: installing %s: %w: %s", pkg, err, lastLine(string(out)))
	}
	if path := find(name); path != "" {
		return path, nil
	}
	return "", fmt.Errorf("driver: package %s has no %s", pkg, name)
}

// find returns the path of a program in PATH or in a folder for system programs, or "".
func find(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin"} {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 {
			return path
		}
	}
	return ""
}

// firstLine runs a program and returns the first line of its output.
func firstLine(ctx context.Context, argv ...string) string {
	out, _ := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput() // some programs exit with 1 after printing their version
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line
}
