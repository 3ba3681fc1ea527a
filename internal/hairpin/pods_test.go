package hairpin_test

import (
	"fmt"
	"net"
	"regexp"
	"testing"
	"time"

	"weft/internal/nettest"
	"weft/internal/nettest/labtest"
)

// countEchoes counts the frames that arrive in a pod with its own MAC as the source. Further calls start at zero.
func countEchoes(t *testing.T, s *nettest.Space) {
	t.Helper()
	_, _ = s.Run(t.Context(), "nft", "delete", "table", "netdev", "echoes")
	labtest.Run(t, s, "sh", "-c", `nft "table netdev echoes { chain c { type filter hook ingress device eth0 priority 0
		ether saddr $(ip -br link show eth0 | awk '{print $3}') counter
		}
	}"`)
}

var packets = regexp.MustCompile(`packets (\d+)`)

// counted returns the number of frames since countEchoes.
func counted(t *testing.T, s *nettest.Space) string {
	t.Helper()
	out := labtest.Run(t, s, "nft", "list", "table", "netdev", "echoes")
	return packets.FindStringSubmatch(out)[1]
}

// serve answers connections to port 80 of a pod until the test ends.
func serve(t *testing.T, p *nettest.Pod) {
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
	t.Cleanup(func() { _ = l.Close(); <-ended })
}

// read connects from a pod to port 80 of an address and reads the answer.
func read(t *testing.T, p *nettest.Pod, addr string) error {
	t.Helper()
	return p.Do(func() error {
		c, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(t.Context(), "tcp", net.JoinHostPort(addr, "80"))
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		if err := c.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
			return err
		}
		text := make([]byte, 5)
		if _, err := c.Read(text); err != nil || string(text) != "hello" {
			return fmt.Errorf("read %q: %w", text, err)
		}
		return nil
	})
}
