// Package wireguardtest makes devices of WireGuard for tests: those of wireguard-go, a program in userspace with the control socket that
// wgctrl knows, or those of the kernel, where WEFT_WIREGUARD=kernel is set.
package wireguardtest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"weft/internal/nettest"
	"weft/internal/nettest/labtest"
)

// patience is how long the program may take to start or to end.
const patience = 20 * time.Second

// Kernel reports whether the tests use the kernel's WireGuard.
func Kernel() bool { return os.Getenv("WEFT_WIREGUARD") == "kernel" }

// program returns the path of wireguard-go, which is a tool of the module: Go builds it once, and keeps it in its build cache.
var program = sync.OnceValues(func() (string, error) {
	tool := exec.Command("go", "tool", "-n", "golang.zx2c4.com/wireguard")
	tool.Env = append(os.Environ(), "CGO_ENABLED=0")
	path, err := tool.Output()
	if err != nil {
		return "", fmt.Errorf("build wireguard-go: %w", err)
	}
	return strings.TrimSpace(string(path)), nil
})

// count makes names different: the control sockets are in one folder for all network namespaces.
var count atomic.Int32

// Name returns the name of a device that does not exist on any host.
func Name() string { return fmt.Sprintf("wg%x-%d", os.Getpid(), count.Add(1)) }

// Start makes a device of wireguard-go on a host, which lives until the test ends, or until the device is deleted, and returns its name.
func Start(t *testing.T, h *nettest.Host) (name string) {
	t.Helper()
	name = Name()
	StartNamed(t, h, name)
	return name
}

// StartNamed is Start with a name. It returns the process.
func StartNamed(t *testing.T, h *nettest.Host, name string) *nettest.Process {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	p, err := h.Start(nettest.ProcessConfig{Name: "wireguard-go", Argv: []string{path, "-f", name}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Stop(patience) })
	socket := filepath.Join("/var/run/wireguard", name+".sock")
	labtest.Until(t, patience, func() error { // the file exists a moment before the program listens
		conn, err := net.Dial("unix", socket)
		if err == nil {
			err = conn.Close()
		}
		return err
	})
	return p
}
