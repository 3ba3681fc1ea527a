package cni_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"weft/internal/api"
	"weft/internal/masq"
	"weft/internal/nettest"
	"weft/internal/nettest/cnitest"
	"weft/internal/nettest/labtest"
	"weft/internal/podlink"
)

// binDir returns the folder of the programs, which are built once.
var binDir string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "weft-cni")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binDir, socket = dir, filepath.Join(dir, "weft.sock")
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// host is a host with the overlay's bridge, a fake daemon, and a container runtime.
type host struct {
	*nettest.Host
	*cnitest.Runtime
	lab    *nettest.Lab
	daemon *fakeDaemon
}

func newHost(t testing.TB) *host {
	t.Helper()
	h := &host{lab: labtest.New(t, nettest.Config{}), daemon: newFakeDaemon()}
	h.Host = labtest.AddHost(t, h.lab, "a")
	if _, err := os.Stat(filepath.Join(binDir, "weft")); err != nil {
		if err := cnitest.Build(t.Context(), binDir); err != nil {
			t.Fatal(err)
		}
	}
	for _, line := range []string{
		"link add weave type bridge", "addr add 10.32.0.1/12 dev weave", "addr add fd32::1/64 dev weave nodad", "link set weave up",
	} {
		labtest.Run(t, h.Space, append([]string{"ip"}, strings.Fields(line)...)...)
	}
	if err := h.Do(func() error { return masq.EnableForwarding(true, true) }); err != nil {
		t.Fatal(err)
	}
	serve(t, h.Socket(), h.daemon)
	var err error
	if h.Runtime, err = cnitest.New(h.Host, binDir); err != nil {
		t.Fatal(err)
	}
	return h
}

// serve serves the daemon's API for d until the test ends.
func serve(t testing.TB, socket string, d *fakeDaemon) {
	t.Helper()
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, v any, err error) {
		var problem *api.Problem
		if errors.As(err, &problem) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusConflict)
			v = problem
		}
		if err := json.NewEncoder(w).Encode(v); err != nil {
			t.Error(err)
		}
	}
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) {
		s, err := d.Status(r.Context())
		answer(w, s, err)
	})
	mux.HandleFunc("GET /v1/ipam", func(w http.ResponseWriter, r *http.Request) {
		i, err := d.IPAM(r.Context())
		answer(w, i, err)
	})
	mux.HandleFunc("PUT /v1/join", func(w http.ResponseWriter, r *http.Request) {
		var req api.JoinRequest
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
			t.Error(err)
		}
		j, err := d.Join(r.Context(), req)
		answer(w, j, err)
	})
	mux.HandleFunc("GET /v1/ip", func(w http.ResponseWriter, r *http.Request) {
		l, err := d.Leases(r.Context(), r.URL.Query().Get("owner"))
		answer(w, l, err)
	})
	mux.HandleFunc("DELETE /v1/ip", func(w http.ResponseWriter, r *http.Request) {
		answer(w, struct{}{}, d.Release(r.Context(), r.URL.Query().Get("owner"), r.URL.Query().Get("ip")))
	})
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: mux}
	ended := make(chan struct{})
	go func() { _ = server.Serve(l); close(ended) }()
	t.Cleanup(func() { _ = server.Close(); <-ended })
}

func (h *host) configure(t *testing.T, network, version string, plugins ...string) {
	t.Helper()
	weft := fmt.Sprintf(`{"type": "weft", "socket": %q, "capabilities": {"ips": true, "mac": true}}`, h.Socket())
	all := strings.Join(append([]string{weft}, plugins...), ",")
	if err := h.Configure(network, fmt.Sprintf(`{"cniVersion": %q, "name": %q, "plugins": [%s]}`, version, network, all)); err != nil {
		t.Fatal(err)
	}
}

// addPod joins a namespace and compares the result with the namespace.
func (h *host) addPod(t *testing.T, network string, p *nettest.Pod, o cnitest.Options) *types100.Result {
	t.Helper()
	res, err := h.Add(t.Context(), network, p.Path(), o)
	if err != nil {
		t.Fatal(err)
	}
	prefixes, mac, err := podlink.New().Addresses(p.Path(), "eth0")
	if err != nil || res.Interfaces[2].Mac != mac.String() || res.Interfaces[2].Sandbox != p.Path() || len(prefixes) != len(res.IPs) {
		t.Errorf("result %+v, but the pod has %v and %s: %v", res, prefixes, mac, err)
	}
	return res
}

func (h *host) wantClean(t *testing.T, p *nettest.Pod) {
	t.Helper()
	if _, _, err := podlink.New().Addresses(p.Path(), "eth0"); !errors.Is(err, podlink.ErrNoLink) {
		t.Errorf("the pod's interface: %v, want ErrNoLink", err)
	}
	if out := labtest.Run(t, h.Space, "ip", "-br", "link"); strings.Contains(out, podlink.HostPrefix) {
		t.Errorf("host links:\n%s", out)
	}
	if left := h.daemon.owners(); len(left) > 0 {
		t.Errorf("leases of %v", left)
	}
}

// serveHello runs a server on port 80 of the pod until stop is called.
func serveHello(t *testing.T, p *nettest.Pod) (stop func()) {
	t.Helper()
	var l net.Listener
	if err := p.Do(func() (err error) { l, err = net.Listen("tcp", ":80"); return err }); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("hello"))
			_ = c.Close()
		}
	}()
	return func() { _ = l.Close(); <-ended }
}

// readHello reads the server's greeting from a namespace.
func readHello(from *nettest.Space, at netip.AddrPort) error {
	return from.Do(func() error {
		fd, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(at))
		if err != nil {
			return err
		}
		defer func() { _ = fd.Close() }()
		if err := fd.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			return err
		}
		text := make([]byte, 5)
		if _, err := fd.Read(text); err != nil || string(text) != "hello" {
			return fmt.Errorf("read %q: %w", text, err)
		}
		return nil
	})
}
