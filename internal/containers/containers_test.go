package containers

import (
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weft/internal/hint"
)

// engine serves the containers "web", which runs, and "off", which does not.
func engine(t *testing.T) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "docker.sock")
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /containers/{name}/json", func(w http.ResponseWriter, r *http.Request) {
		state := map[string]any{"web": map[string]any{"Running": true, "Pid": 4711}, "off": map[string]any{}}[r.PathValue("name")]
		if state == nil {
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write([]byte(`{"message": "No such container"}`))
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"Id": "abc", "Name": "/" + r.PathValue("name"), "State": state})
	})
	s := &http.Server{Handler: mux} //nolint:gosec // a test
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return socket
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	for path, pid := range map[string]string{"k8s.io/abcd1": "11\n", "k8s.io/abcd2": "12", "moby/abcd": "13", "moby/broken": "x"} {
		task := filepath.Join(dir, path)
		if err := errors.Join(os.MkdirAll(task, 0o700), os.WriteFile(filepath.Join(task, "init.pid"), []byte(pid), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	podman := filepath.Join(t.TempDir(), "podman")
	script := "#!/bin/sh\n[ \"$3\" = pod ] && echo '[{\"Name\": \"pod\", \"State\": {\"Pid\": 99}}]'"
	if err := os.WriteFile(podman, []byte(script), 0o700); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	f := Finder{Sockets: []string{filepath.Join(dir, "none.sock"), engine(t)}, Podman: podman, Tasks: dir}
	for name, c := range map[string]struct {
		want Container
		kind hint.Kind // of the error; empty: none
		says string
	}{
		"web":    {want: Container{Name: "web", Pid: 4711}},
		"pod":    {want: Container{Name: "pod", Pid: 99}},
		"abcd1":  {want: Container{Pid: 11}},
		"abcd":   {want: Container{Pid: 13}},
		"off":    {kind: hint.Refused, says: "does not run"},
		"abc":    {kind: hint.Invalid, says: "3 containers"},
		"broken": {kind: hint.Internal, says: "no process ID"},
		"none":   {kind: hint.NotFound, says: "none.sock, "},
		"*":      {kind: hint.NotFound, says: `"*"`},
		"":       {kind: hint.NotFound, says: `""`},
		"a/../b": {kind: hint.NotFound, says: "containerd"},
	} {
		got, err := f.Find(t.Context(), name)
		if c.kind == "" {
			if err != nil || got != c.want {
				t.Errorf("%q: %+v, %v; want %+v", name, got, err, c.want)
			}
			continue
		}
		refused, ok := errors.AsType[*hint.Error](err)
		if !ok || refused.Kind != c.kind || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q: %v, want %s with %q", name, err, c.kind, c.says)
		}
	}
	if got := (Container{Pid: 7}).Netns(); got != "/proc/7/ns/net" {
		t.Errorf("namespace %s", got)
	}
}
