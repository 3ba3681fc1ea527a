package e2e

import (
	"net"
	"path/filepath"
	"strings"
	"testing"

	"weft/internal/nettest"
	"weft/internal/nettest/labtest"
)

// TestServiceManager: a node notifies its service manager when it is ready, periodically for the watchdog, and when it
// stops (sd_notify).
func TestServiceManager(t *testing.T) {
	t.Parallel()
	n := newNodes(t, "a")[0]
	path := filepath.Join(n.Dir(), "notify")
	notifications, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notifications.Close()
	p := labtest.Start(t, n.Host, nettest.ProcessConfig{
		Name: "weft",
		Argv: []string{
			"env", "NOTIFY_SOCKET=" + path, "WATCHDOG_USEC=1000000",
			filepath.Join(bin, "weft"), "up", "--state-dir", n.StateDir(), "--socket", n.Socket(),
		},
	})
	next := make(chan string, 64)
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := notifications.Read(buf)
			if err != nil {
				return
			}
			for line := range strings.Lines(string(buf[:n])) {
				next <- strings.TrimSpace(line)
			}
		}
	}()
	ctx := testContext(t)
	wait := func(want string) {
		t.Helper()
		var all []string
		for {
			select {
			case line := <-next:
				if line == want {
					return
				}
				all = append(all, line)
			case <-ctx.Done():
				t.Fatalf("no notification %q, but %q", want, all)
			}
		}
	}
	for _, want := range []string{"READY=1", "STATUS=ready", "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1"} {
		wait(want)
	}
	if err := p.Stop(patience); err != nil {
		t.Fatal(err)
	}
	wait("STOPPING=1")
}
