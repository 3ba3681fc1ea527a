package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"weft/internal/nettest/labtest"
)

// mostExposed is the highest exposure level of the unit, on systemd's scale from 0 to 10 (below 5 is "OK"). Root, capabilities
// for network and namespaces, and the host's network are necessary for weft and amount to 3.4 in systemd 252.
const mostExposed = 3.7

// analyze runs systemd-analyze, which works without a running systemd.
func analyze(t *testing.T, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		labtest.Missing(t, "systemd-analyze (Debian: systemd)")
	}
	out, err := exec.CommandContext(t.Context(), "systemd-analyze", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("systemd-analyze %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// units are the units of systemd.
var units = []string{"weft.service", "weft-docker.service"}

// programs are the programs that they start.
var programs = regexp.MustCompile(`/usr/bin/weft(-docker)? `)

// unit returns the path of a copy of a unit that starts /bin/true instead of weft: verify needs an existing program.
func unit(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("systemd", name))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, programs.ReplaceAll(text, []byte("/bin/true ")), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestUnitIsValid(t *testing.T) {
	for _, name := range units {
		for line := range strings.Lines(analyze(t, "verify", "--man=no", "--recursive-errors=no", unit(t, name))) {
			if strings.Contains(line, name) { // other lines are about units of this machine
				t.Error(line)
			}
		}
	}
}

func TestUnitIsClosed(t *testing.T) {
	for _, name := range units {
		out := analyze(t, "security", "--offline=true", unit(t, name))
		m := regexp.MustCompile(`exposure level for ` + regexp.QuoteMeta(name) + `: ([0-9.]+)`).FindStringSubmatch(out)
		if m == nil {
			t.Fatalf("no exposure level in\n%s", out)
		}
		level, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		if level > mostExposed {
			t.Errorf("%s: exposure %.1f, want at most %.1f:\n%s", name, level, mostExposed, out)
		}
		t.Logf("%s: exposure %.1f", name, level)
	}
}
