package dockerapi

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/internal/ether"
)

// serve serves answers by method and path, as a Docker Engine does, and records the queries.
func serve(t *testing.T, answers map[string]string) (c *Client, queries map[string]string) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "docker.sock")
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	queries = map[string]string{}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { //nolint:gosec // a test
		key := r.Method + " " + r.URL.EscapedPath()
		queries[key] = r.URL.RawQuery
		text, ok := answers[key]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			text = `{"message": "No such container: x"}`
		}
		if strings.HasPrefix(text, "!") {
			w.WriteHeader(http.StatusInternalServerError)
		}
		_, _ = w.Write([]byte(strings.TrimPrefix(text, "!")))
	})}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return NewClient(socket), queries
}

func TestContainer(t *testing.T) {
	c, _ := serve(t, map[string]string{
		"GET /containers/a%2Fb/json": `{"Id": "0123", "Name": "/web", "State": {"Running": true, "Pid": 7, "Error": "x"},
			"HostConfig": {"RestartPolicy": {"Name": "always"}}, "Config": {"Labels": {"com.docker.swarm.service.name": "shop"}},
			"NetworkSettings": {"Networks": {"mynet": {"NetworkID": "n1", "EndpointID": "e1", "MacAddress": "02:42:0a:20:01:05",
				"IPAddress": "10.32.1.5", "GlobalIPv6Address": "fd32::5", "Aliases": ["s"]}}}}`,
		"GET /containers/stopped/json": `{"Id": "4567", "Name": "/stopped",
			"NetworkSettings": {"Networks": {"mynet": {"NetworkID": "n1", "Aliases": null}}}}`,
		"GET /containers/broken/json": `{"Id": `,
		"GET /containers/bad/json":    `!{"message": "no disk"}`,
	})
	got, err := c.Container(t.Context(), "a/b")
	want := Container{
		ID: "0123", Name: "web", Running: true, Pid: 7, Failure: "x", RestartPolicy: "always", Service: "shop",
		Endpoints: []Endpoint{{
			Network: "mynet", NetworkID: "n1", ID: "e1", MAC: ether.Addr{2, 0x42, 10, 32, 1, 5},
			Addrs: []netip.Addr{netip.MustParseAddr("10.32.1.5"), netip.MustParseAddr("fd32::5")}, Aliases: []string{"s"},
		}},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if got, err := c.Container(t.Context(), "stopped"); err != nil || got.Running || !got.Endpoints[0].MAC.IsZero() ||
		got.Endpoints[0].Addrs != nil {
		t.Errorf("a stopped container: %+v, %v", got, err)
	}
	if _, err := c.Container(t.Context(), "none"); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "No such container: x") {
		t.Errorf("an unknown container: %v", err)
	}
	if _, err := c.Container(t.Context(), "broken"); err == nil {
		t.Error("an answer that is cut short is accepted")
	}
	if _, err := c.Container(t.Context(), "bad"); err == nil || !strings.Contains(err.Error(), "no disk") {
		t.Errorf("a failure of the engine: %v", err)
	}
	if _, err := NewClient(t.TempDir()+"/none").Container(t.Context(), "x"); !errors.Is(err, ErrNoEngine) {
		t.Errorf("without an engine: %v", err)
	}
}

func TestLists(t *testing.T) {
	c, queries := serve(t, map[string]string{
		"GET /networks":               `[{"Id": "n1", "Name": "mynet", "Driver": "weft"}, {"Id": "n2", "Name": "bridge", "Driver": "bridge"}]`,
		"GET /containers/json":        `[{"Id": "0123"}, {"Id": "4567"}]`,
		"POST /containers/0123/start": ``,
		"GET /events":                 `{"Action": "start"}{"Action": "exec_create: true"}{"Action": "die"}`,
	})
	networks, err := c.Networks(t.Context())
	want := []Network{{ID: "n1", Name: "mynet", Driver: "weft"}, {ID: "n2", Name: "bridge", Driver: "bridge"}}
	if diff := cmp.Diff(want, networks); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	ids, err := c.ContainersOn(t.Context(), []string{"n1"})
	if diff := cmp.Diff([]string{"0123", "4567"}, ids); diff != "" || err != nil ||
		!strings.Contains(queries["GET /containers/json"], "all=1") {
		t.Errorf("%v, %v (-want +got):\n%s", err, queries, diff)
	}
	if ids, err := c.ContainersOn(t.Context(), nil); err != nil || ids != nil {
		t.Errorf("containers of no network: %v, %v", ids, err)
	}
	if err := c.Start(t.Context(), "0123"); err != nil {
		t.Error(err)
	}
	n := 0
	if err := c.Watch(t.Context(), func() { n++ }); err == nil || n != 3 {
		t.Errorf("%d changes, %v; want one at the start and one for each event but those of health checks", n, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Watch(ctx, func() {}); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end: %v", err)
	}
}

// TestPidFile: after the engine has ended, the client leaves its socket alone until there is a new one.
func TestPidFile(t *testing.T) {
	c, queries := serve(t, map[string]string{"GET /networks": `[]`})
	pid := filepath.Join(t.TempDir(), "docker.pid")
	c.WithPidFile(pid)
	asks := func(what string, want bool) {
		t.Helper()
		clear(queries)
		_, err := c.Networks(t.Context())
		if _, asked := queries["GET /networks"]; asked != want || errors.Is(err, ErrNoEngine) == want {
			t.Errorf("%s: asked %v, %v", what, asked, err)
		}
	}
	asks("without a file, as of an engine that has another one", true)
	if err := os.WriteFile(pid, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	asks("while it runs", true)
	if err := os.Remove(pid); err != nil {
		t.Fatal(err)
	}
	asks("after it has ended", false)
	if err := os.WriteFile(pid, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	asks("again", true)
}
