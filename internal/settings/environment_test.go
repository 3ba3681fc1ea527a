package settings

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestUnknownVariables(t *testing.T) {
	for _, tt := range []struct {
		name, value string
		want        string // empty: accepted
		hint        string
	}{
		{"WEFT_MUT", "1400", `the environment variable WEFT_MUT is unknown`, "Did you mean WEFT_MTU? "},
		{"WEFT_COLOR", "blue", `the environment variable WEFT_COLOR is unknown`, "Unset it: "},
		{"WEFT_MTU", "1400", "", ""},
		{"WEFT_CONFIG", "/etc/weft/weft.yaml", "", ""},
		{"WEFT_TEST", "require", "", ""},
		{"WEFT_APISERVER", "", "", ""},
		{"WEFT_PLAIN", "false", "", ""},
		{"WEFTY", "x", "", ""},
		// Service links of Kubernetes, for Services called weft, weft-metrics and weft-mtu.
		{"WEFT_SERVICE_HOST", "10.96.0.1", "", ""},
		{"WEFT_SERVICE_PORT", "6783", "", ""},
		{"WEFT_SERVICE_PORT_GOSSIP_TCP", "6783", "", ""},
		{"WEFT_PORT_6783_TCP", "tcp://10.96.0.1:6783", "", ""},
		{"WEFT_PORT_6783_TCP_PROTO", "tcp", "", ""},
		{"WEFT_PORT_6783_UDP_PORT", "6783", "", ""},
		{"WEFT_PORT_6783_TCP_ADDR", "10.96.0.1", "", ""},
		{"WEFT_METRICS_SERVICE_HOST", "10.96.0.2", "", ""},
		{"WEFT_METRICS_SERVICE_PORT_HTTP", "80", "", ""},
		{"WEFT_METRICS_PORT", "tcp://10.96.0.2:80", "", ""},
		{"WEFT_METRICS_PORT_80_TCP_ADDR", "10.96.0.2", "", ""},
		{"WEFT_MTU_PORT", "udp://10.96.0.3:53", "", ""},
		{"WEFT_METRICS_PORT", "80", `the environment variable WEFT_METRICS_PORT is unknown`, "Unset it: "},
	} {
		_, err := fill(t, nil, map[string]string{tt.name: tt.value}, "")
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s=%s: %v", tt.name, tt.value, err)
		case tt.want != "" && (err == nil || err.Error() != tt.want || !strings.HasPrefix(hintOf(err), tt.hint)):
			t.Errorf("%s=%s: %v, hint %q; want %q, %q", tt.name, tt.value, err, hintOf(err), tt.want, tt.hint)
		}
	}
}

// TestServicePortIsNoFlag: the variable WEFT_PORT of a Service called weft does not change --port, and a number does.
func TestServicePortIsNoFlag(t *testing.T) {
	for value, want := range map[string]string{"tcp://10.96.0.1:6783": "6783", "7000": "7000"} {
		flags, err := fill(t, nil, map[string]string{"WEFT_PORT": value}, "")
		if err != nil || flags.Lookup("port").Value.String() != want {
			t.Errorf("WEFT_PORT=%s: --port %s, %v; want %s", value, flags.Lookup("port").Value, err, want)
		}
	}
	if _, err := fill(t, nil, map[string]string{"WEFT_PORT": "many"}, ""); err == nil {
		t.Error("WEFT_PORT=many is accepted")
	}
}

// TestVariablesOfTheProject: a node accepts all variables with its prefix that tests, scripts and manifests of weft set.
func TestVariablesOfTheProject(t *testing.T) {
	set := regexp.MustCompile(`(?:Getenv\("|name: |\$\{|\b)(WEFT_[A-Z][A-Z_]*[A-Z])(?:"\)|[,:}?]| *\?=|=)`)
	var found []string
	for _, pattern := range []string{
		"Makefile", "deploy/*.yaml", "deploy/*.sh", "internal/e2e/*_test.go", "internal/e2e/kubernetes/*_test.go", "ipam/*_test.go",
		"internal/nettest/*/*.go", "cmd/weft-kube/*.go", "mesh/*_test.go",
	} {
		files, err := filepath.Glob(filepath.Join("../..", pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: no files, %v", pattern, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range set.FindAllStringSubmatch(string(text), -1) {
				found = append(found, m[1])
			}
		}
	}
	slices.Sort(found)
	found = slices.Compact(found)
	if !slices.Contains(found, "WEFT_TEST") || !slices.Contains(found, "WEFT_APISERVER") {
		t.Fatalf("the search finds only %v", found)
	}
	flags := []string{ // those of a node among them, which cmd/weft defines
		"WEFT_RANGE", "WEFT_NAME", "WEFT_ADVERTISE", "WEFT_NO_DNS", "WEFT_GUARD", "WEFT_MTU", "WEFT_SOCKET",
		"WEFT_SECRET_FILE", "WEFT_STATE_DIR",
	}
	for _, name := range found {
		if name == "WEFT_MUT" { // a mistake of a test
			continue
		}
		if slices.Contains(flags, name) {
			continue
		}
		if _, err := fill(t, nil, map[string]string{name: ""}, ""); err != nil && strings.Contains(err.Error(), "unknown") {
			t.Errorf("%v", err)
		}
	}
}
