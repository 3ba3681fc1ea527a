package main

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"weft/internal/api"
	"weft/internal/doctor"
)

// TestDoctorAsksTheNode: without flags for a node, "weft doctor" shows the checks of the running node, even if the
// environment has settings, as in the node's container. With such a flag it checks the host itself.
func TestDoctorAsksTheNode(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "weft.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	fromNode := api.Check{Name: "secret", Result: api.CheckOK, Detail: "checked by the node"}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/checks", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode([]api.Check{fromNode})
	})
	server := &httptest.Server{Listener: l, Config: &http.Server{Handler: mux}} //nolint:gosec // a test
	server.Start()
	defer server.Close()
	t.Setenv("WEFT_NAME", "node1")
	for _, tt := range []struct {
		args []string
		node bool
	}{{nil, true}, {[]string{"--mtu", "1400"}, false}} {
		if !tt.node && !doctor.Privileged() {
			continue // only root checks the host
		}
		var stdout, stderr bytes.Buffer
		run(t.Context(), append([]string{"doctor", "--json", "--socket", socket}, tt.args...), &stdout, &stderr)
		var found []api.Check
		if err := json.Unmarshal(stdout.Bytes(), &found); err != nil {
			t.Fatalf("%v: %s%s", err, stdout.String(), stderr.String())
		}
		if byNode := len(found) == 1 && found[0] == fromNode; byNode != tt.node {
			t.Errorf("doctor %v: checked by the node: %v, want %v: %+v", tt.args, byNode, tt.node, found)
		}
	}
}
