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
)

// TestDoctorAsksTheNode: without flags of its own "weft doctor" is told by the node that runs, also where the environment has settings,
// as in the node's container; with a flag it looks itself.
func TestDoctorAsksTheNode(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "weft.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	told := api.Check{Name: "secret", Result: api.CheckOK, Detail: "told by the node"}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/checks", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode([]api.Check{told}) })
	server := &httptest.Server{Listener: l, Config: &http.Server{Handler: mux}} //nolint:gosec // a test
	server.Start()
	defer server.Close()
	t.Setenv("WEFT_NAME", "node1")
	for _, tt := range []struct {
		args []string
		node bool
	}{{nil, true}, {[]string{"--mtu", "1400"}, false}} {
		var stdout, stderr bytes.Buffer
		run(t.Context(), append([]string{"doctor", "--json", "--socket", socket}, tt.args...), &stdout, &stderr)
		var found []api.Check
		if err := json.Unmarshal(stdout.Bytes(), &found); err != nil {
			t.Fatalf("%v: %s%s", err, stdout.String(), stderr.String())
		}
		if byNode := len(found) == 1 && found[0] == told; byNode != tt.node {
			t.Errorf("doctor %v: told by the node %v, want %v: %+v", tt.args, byNode, tt.node, found)
		}
	}
}
