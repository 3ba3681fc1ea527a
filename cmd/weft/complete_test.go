package main

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"weft/internal/api"
	"weft/internal/peer"
)

// completions returns what a shell offers after a command line, with the node at socket.
func completions(t *testing.T, socket string, line ...string) []string {
	t.Helper()
	var out, errs bytes.Buffer
	t.Setenv(api.SocketEnv, socket)
	if code := run(t.Context(), append([]string{"__complete"}, line...), &out, &errs); code != 0 {
		t.Fatalf("%v: exit code %d: %s", line, code, errs.String())
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	return lines[:len(lines)-1] // the last one is for the shell
}

// TestCompletion: a shell completes values that the node knows, and fixed values.
func TestCompletion(t *testing.T) {
	socket := daemon(t, map[string]any{
		"/v1/peers": []api.Peer{
			{ID: peer.ID{1}, Name: "self", Self: true, State: api.PeerAlive}, {ID: peer.ID{2}, Name: "host2", State: api.PeerAlive},
			{ID: peer.ID{3}, Name: "host3", State: api.PeerDead},
		},
		"/v1/status": api.Status{Targets: []api.Target{{Addr: "host2:6783"}}},
		"/v1/names":  []api.Name{{Name: "web"}, {Name: "web"}, {Name: "db"}},
		"/v1/ip":     []api.Lease{{Owner: "vip"}},
	})
	for line, want := range map[string]string{
		"reclaim |":                 "host3",
		"reclaim host3 |":           "",
		"capture --peer |":          "host2 host3",
		"forget |":                  "host2:6783",
		"dns remove |":              "db web",
		"dns lookup w|":             "web",
		"ip release |":              "vip",
		"ip lookup |":               "vip",
		"up --cipher a|":            "auto aes-256-gcm",
		"up --datapath k|":          "kernel",
		"up --guard p|":             "pods",
		"up --log-level d|":         "debug",
		"up --offload o|":           "off",
		"doctor --source-check e|":  "enforce",
		"attach --guard o|":         "off",
		"attach --netns no-such-n|": "",
	} {
		words := strings.Split(strings.TrimSuffix(line, "|"), " ")
		var got []string
		for _, word := range completions(t, socket, words...) {
			if strings.HasPrefix(word, words[len(words)-1]) { // as a shell filters them
				got = append(got, word)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("weft %s: %q, want %q", line, got, want)
		}
	}
	for _, line := range []string{"reclaim |", "forget |", "dns lookup |", "ip release |", "capture --peer |"} {
		words := strings.Split(strings.TrimSuffix(line, "|"), " ")
		if got := completions(t, t.TempDir()+"/none", words...); len(got) > 0 {
			t.Errorf("weft %s without a node: %q", line, got)
		}
	}
}

// daemon serves documents at a socket by path and query, or else by path, and returns the socket.
func daemon(t *testing.T, documents map[string]any) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "weft.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		doc, ok := documents[r.URL.RequestURI()]
		if !ok {
			doc = documents[r.URL.Path]
		}
		if err := json.NewEncoder(w).Encode(doc); err != nil {
			t.Error(err)
		}
	})
	server := &httptest.Server{Listener: l, Config: &http.Server{Handler: handler}} //nolint:gosec // a test
	server.Start()
	t.Cleanup(server.Close)
	return socket
}
