package kube

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

// TestInstallOrder: the configuration is written once a pod can be added, and again after it was deleted.
func TestInstallOrder(t *testing.T) {
	b := newBench(t)
	plugin := filepath.Join(t.TempDir(), "weft-cni")
	if err := os.WriteFile(plugin, []byte("program"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.cfg.Install = &Install{
		Plugin: plugin, BinDir: t.TempDir(), ConfDir: t.TempDir(), Socket: "/run/weft/weft.sock", Policy: "/run/weft/kube.sock",
	}
	a := &Agent{cfg: b.cfg, health: &health{}}
	conflist := filepath.Join(b.cfg.Install.ConfDir, ConflistName)
	foreign := filepath.Join(b.cfg.Install.ConfDir, "20-other.conflist")
	if err := os.WriteFile(foreign, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := a.installPlugin(false); err == nil {
		t.Error("ready without a configuration")
	}
	if _, err := os.Stat(conflist); err == nil {
		t.Error("the configuration is there before a pod can be added")
	}
	for range 2 {
		if err := a.installPlugin(true); err != nil {
			t.Error(err)
		}
		if err := os.Remove(conflist); err != nil {
			t.Error(err)
		}
	}
	if err := a.installPlugin(true); err != nil {
		t.Error(err)
	}
	if err := a.installPlugin(false); err != nil {
		t.Errorf("the plugin is removed because the daemon does not answer: %v", err)
	}
	for _, path := range []string{conflist, foreign, filepath.Join(b.cfg.Install.BinDir, PluginName)} {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
}

// TestAPIServersAreRemembered: the stored addresses are dialed if the address of the Service does not work.
func TestAPIServersAreRemembered(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	port := int32(l.Addr().(*net.TCPAddr).Port)
	api := fake.NewClientset(&discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: "kubernetes"},
		Endpoints:  []discoveryv1.Endpoint{{Addresses: []string{"127.0.0.1"}}}, Ports: []discoveryv1.EndpointPort{{Port: &port}},
	})
	dir := t.TempDir()
	if err := RememberAPIServers(t.Context(), api, dir); err != nil {
		t.Fatal(err)
	}
	var e endpoints
	text, err := os.ReadFile(filepath.Join(dir, endpointsFile))
	if err == nil {
		err = json.Unmarshal(text, &e)
	}
	if err != nil {
		t.Fatal(err)
	}
	conn, err := e.dial(t.Context(), "tcp", "127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	if _, err := (endpoints{}).dial(t.Context(), "tcp", "127.0.0.1:1"); err == nil {
		t.Error("a connection to an address without a listener succeeded")
	}
}
