package deploy

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"weft/internal/nettest/labtest"
)

// TestDebianPackage: the .deb of a release for this architecture can be installed, removed and purged, on a copy of this machine.
func TestDebianPackage(t *testing.T) {
	labtest.RequireRoot(t)
	if testing.Short() {
		t.Skip("builds a release")
	}
	for _, program := range []string{"dpkg", "git"} {
		if _, err := exec.LookPath(program); err != nil {
			labtest.Missing(t, program)
		}
	}
	out := t.TempDir()
	release := exec.CommandContext(t.Context(), "./release.sh", out, runtime.GOARCH)
	release.Env = append(os.Environ(), "WEFT_RELEASE_PARTS=deb") // the other parts take minutes
	if text, err := release.CombinedOutput(); err != nil {
		t.Fatalf("release.sh: %v\n%s", err, text)
	}
	debs, err := filepath.Glob(filepath.Join(out, "weft_*_"+runtime.GOARCH+".deb"))
	if err != nil || len(debs) != 1 {
		t.Fatalf("want one .deb: %v, %v", debs, err)
	}
	m := newMachine(t, debs[0])

	if text := m.run("dpkg", "--install", "/weft.deb"); !strings.Contains(text, "systemctl enable --now weft") {
		t.Errorf("the installation does not print how to start the service:\n%s", text)
	}
	for path, mode := range map[string]os.FileMode{
		"usr/bin/weft": 0o755, "usr/bin/weft-cni": 0o755, "usr/bin/weft-kube": 0o755, "usr/bin/weft-bench": 0o755,
		"usr/bin/kubectl-weft":                0o755,
		"usr/lib/systemd/system/weft.service": 0o644, "etc/weft/weft.yaml": 0o644,
		"usr/share/man/man8/weft.8.gz": 0o644, "usr/share/man/man8/weft-up.8.gz": 0o644,
		"usr/share/bash-completion/completions/weft": 0o644, "usr/share/zsh/vendor-completions/_weft": 0o644,
		"usr/share/fish/vendor_completions.d/weft.fish": 0o644,
		"usr/share/doc/weft/LICENSE":                    0o644, "usr/share/doc/weft/README.md": 0o644,
	} {
		if info, err := os.Stat(filepath.Join(m.root, path)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v; want mode %v", path, info, err, mode)
		}
	}
	checkLinks(t, filepath.Join(m.root, "usr/share/doc/weft"))
	if text := m.run("dpkg-query", "--show", "--showformat=${Conffiles}", "weft"); !strings.Contains(text, "/etc/weft/weft.yaml") {
		t.Errorf("conffiles: %q", text)
	}
	sums, err := os.ReadFile(filepath.Join(out, "SHA256SUMS"))
	if err != nil || !strings.HasSuffix(string(sums), "  "+filepath.Base(debs[0])+"\n") {
		t.Errorf("the package is not among the signed files: %q, %v", sums, err)
	}
	version, err := exec.CommandContext(t.Context(), "git", "describe", "--tags", "--always", "--dirty", "--abbrev=12").Output()
	if got := m.run("weft", "version"); err != nil || got != "weft "+string(version) {
		t.Errorf("version %q of %q, %v", got, version, err)
	}
	if page := m.run("gzip", "-dc", "/usr/share/man/man8/weft-up.8.gz"); !strings.Contains(page, `secret\-file`) {
		t.Errorf("weft-up(8):\n%s", page)
	}
	page := m.run("gzip", "-dc", "/usr/share/man/man8/weft.8.gz")
	for _, section := range []string{"FIRST STEPS", "COMMANDS", "ENVIRONMENT", "FILES", "EXIT STATUS", "EXAMPLES"} {
		if !strings.Contains(page, section) {
			t.Errorf("weft(8) has no section %s", section)
		}
	}

	state, config := filepath.Join(m.root, "var/lib/weft"), filepath.Join(m.root, "etc/weft/weft.yaml")
	m.write(filepath.Join(state, "node.key"), "key")
	m.write(config, "mtu: 1400\n")
	m.run("dpkg", "--install", "/weft.deb") // again: changes of the administrator stay
	if text, err := os.ReadFile(config); err != nil || string(text) != "mtu: 1400\n" {
		t.Errorf("after an upgrade %s is %q, %v", config, text, err)
	}
	if text := m.run("dpkg", "--remove", "weft"); !strings.Contains(text, "kept /var/lib/weft") || m.absent(state) || m.absent(config) {
		t.Errorf("a removal must keep state and configuration, and print that:\n%s", text)
	}
	if !m.absent(filepath.Join(m.root, "usr/bin/weft")) {
		t.Error("the program is still there after the removal")
	}
	if text := m.run("dpkg", "--purge", "weft"); !strings.Contains(text, "removing /var/lib/weft") || !m.absent(state) || !m.absent(config) {
		t.Errorf("a purge must remove state and configuration, and print that:\n%s", text)
	}
}

// link matches the target of a relative link in Markdown, without its anchor.
var link = regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)

// checkLinks checks that all documents below a folder link only to files that are there.
func checkLinks(t *testing.T, dir string) {
	t.Helper()
	documents := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".md" {
			return err
		}
		documents++
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), m[1])); err != nil {
				t.Errorf("%s links to %s, which the package does not have", strings.TrimPrefix(path, dir+"/"), m[1])
			}
		}
		return nil
	})
	if err != nil || documents < 20 {
		t.Errorf("%d documents in the package, %v", documents, err)
	}
}

// machine is a copy of this machine. Its changes are in memory and end with the test.
type machine struct {
	t    *testing.T
	root string
}

// newMachine moves the calling goroutine to a new mount namespace with an overlay of /, which contains deb as /weft.deb. The
// thread ends with the goroutine, and the namespace with the thread. A test with a machine must not have subtests.
func newMachine(t *testing.T, deb string) *machine {
	t.Helper()
	runtime.LockOSThread()
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	must("a mount namespace", unix.Unshare(unix.CLONE_FS|unix.CLONE_NEWNS))
	must("private mounts", unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	text, err := os.ReadFile(deb) // before a mount covers it
	must("the package", err)
	base := t.TempDir()
	must("tmpfs", unix.Mount("tmpfs", base, "tmpfs", 0, ""))
	t.Cleanup(func() { must("unmounting", unix.Unmount(base, unix.MNT_DETACH)) }) // files below are removed through this namespace
	upper, work, root := filepath.Join(base, "upper"), filepath.Join(base, "work"), filepath.Join(base, "root")
	for _, dir := range []string{upper, work, root} {
		must("a folder", os.Mkdir(dir, 0o755))
	}
	must("overlay", unix.Mount("overlay", root, "overlay", 0, "lowerdir=/,upperdir="+upper+",workdir="+work))
	must("/weft.deb", os.WriteFile(filepath.Join(root, "weft.deb"), text, 0o600))
	return &machine{t: t, root: root}
}

// run runs a program on the machine and returns its output.
func (m *machine) run(argv ...string) string {
	m.t.Helper()
	cmd := exec.CommandContext(m.t.Context(), "/usr/bin/env", argv...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: m.root}
	out, err := cmd.CombinedOutput()
	if err != nil {
		m.t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}

func (m *machine) write(path, text string) {
	m.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

// absent reports whether path does not exist.
func (m *machine) absent(path string) bool {
	_, err := os.Lstat(path)
	return os.IsNotExist(err)
}
