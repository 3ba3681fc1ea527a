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

// Tools fetches other people's programs.
type Tools struct {
	// Dir is where Go programs are built into; it outlasts the run.
	Dir string
	// NoFetch forbids to fetch anything: what is there is used.
	NoFetch bool
	// Out takes a line about what is fetched, since it takes a while.
	Out io.Writer
}

// fetchPatience bounds the building or installing of one program.
const fetchPatience = 5 * time.Minute

// goTool returns the path of a Go program at a fixed version, building it when it is not there in that version.
func (t *Tools) goTool(ctx context.Context, name, pkg, version string) (string, error) {
	path, err := filepath.Abs(filepath.Join(t.Dir, name))
	if err != nil {
		return "", fmt.Errorf("driver: %w", err)
	}
	if builtVersion(path) == version {
		return path, nil
	}
	if t.NoFetch {
		return "", fmt.Errorf("driver: %s %s is not in %s, and nothing may be fetched", name, version, t.Dir)
	}
	_, _ = fmt.Fprintf(t.Out, "building %s %s\n", pkg, version)
	ctx, cancel := context.WithTimeout(ctx, fetchPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "install", pkg+"@"+version)
	// Not in this module, whose flags and requirements are none of theirs.
	cmd.Dir = os.TempDir()
	cmd.Env = append(os.Environ(), "GOBIN="+filepath.Dir(path), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("driver: building %s: %w: %s", name, err, lastWords(string(out)))
	}
	return path, nil
}

// builtVersion returns the module version that a Go program was built from, or nothing.
func builtVersion(path string) string {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return ""
	}
	return info.Main.Version
}

// systemTool returns the path of a program of the distribution, installing its Debian package when it is missing.
func (t *Tools) systemTool(ctx context.Context, name, pkg string) (string, error) {
	if path := find(name); path != "" {
		return path, nil
	}
	apt, err := exec.LookPath("apt-get")
	if err != nil || t.NoFetch {
		return "", fmt.Errorf("driver: %s is not installed", name)
	}
	_, _ = fmt.Fprintf(t.Out, "installing %s\n", pkg)
	ctx, cancel := context.WithTimeout(ctx, fetchPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, apt, "install", "-y", "-qq", "--no-install-recommends", pkg)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("driver: installing %s: %w: %s", pkg, err, lastWords(string(out)))
	}
	if path := find(name); path != "" {
		return path, nil
	}
	return "", fmt.Errorf("driver: package %s has no %s", pkg, name)
}

// find looks a program up, also where only root's PATH leads.
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

// firstLine returns the first line that a program prints when asked for its version.
func firstLine(ctx context.Context, argv ...string) string {
	out, _ := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput() // some exit with 1 after it
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line
}
