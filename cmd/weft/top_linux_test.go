package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/api"
)

// pty is a terminal of a test: what a program writes to it is collected.
type pty struct {
	master, slave *os.File

	mu     sync.Mutex
	output bytes.Buffer // guarded by mu
	more   chan struct{}
}

func newPTY(t *testing.T, columns, rows uint16) *pty {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { _ = master.Close() })
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	err = errors.Join(err, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = slave.Close() })
	p := &pty{master: master, slave: slave, more: make(chan struct{}, 1)}
	p.resize(t, columns, rows)
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := master.Read(b)
			p.mu.Lock()
			p.output.Write(b[:n])
			p.mu.Unlock()
			select {
			case p.more <- struct{}{}:
			default:
			}
			if err != nil {
				return
			}
		}
	}()
	return p
}

func (p *pty) resize(t *testing.T, columns, rows uint16) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(p.slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}); err != nil {
		t.Fatal(err)
	}
}

// wants waits until the program has written text since the last call.
func (p *pty) wants(t *testing.T, text string) {
	t.Helper()
	for {
		p.mu.Lock()
		if at := strings.Index(p.output.String(), text); at >= 0 {
			p.output.Next(at + len(text))
			p.mu.Unlock()
			return
		}
		rest := p.output.String()
		p.mu.Unlock()
		select {
		case <-p.more:
		case <-t.Context().Done():
			t.Fatalf("%q does not follow in %q", text, rest)
		case <-time.After(time.Minute):
			t.Fatalf("%q does not follow in %q", text, rest)
		}
	}
}

func (p *pty) typeKeys(t *testing.T, keys string) {
	t.Helper()
	if _, err := p.master.WriteString(keys); err != nil {
		t.Fatal(err)
	}
}

// topDaemon serves documents for each value of next, until next is closed.
func topDaemon(t *testing.T, next <-chan api.Top) *api.Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "weft.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for {
			select {
			case top, more := <-next:
				if !more {
					return
				}
				_ = json.NewEncoder(w).Encode(top)
				_ = http.NewResponseController(w).Flush()
			case <-r.Context().Done():
				return
			}
		}
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close(); <-done })
	return api.NewClient(socket)
}

// TestLiveTop: the screen shows documents in the order that the keys choose, follows the size of the terminal, and is left as it was:
// at q, at Ctrl-C, at a signal and when the daemon stops.
func TestLiveTop(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, p *pty, next chan api.Top){
		"q":      func(t *testing.T, p *pty, _ chan api.Top) { p.typeKeys(t, "q") },
		"Ctrl-C": func(t *testing.T, p *pty, _ chan api.Top) { p.typeKeys(t, "\x03") },
		"hangup": func(t *testing.T, _ *pty, _ chan api.Top) {
			if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
		},
		"the daemon stops": func(_ *testing.T, _ *pty, next chan api.Top) { close(next) },
	} {
		t.Run(name, func(t *testing.T) {
			p, next := newPTY(t, 100, 20), make(chan api.Top)
			client := topDaemon(t, next)
			before, err := unix.IoctlGetTermios(int(p.slave.Fd()), unix.TCGETS)
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() {
				ended <- runLiveTop(context.Background(), client, topOptions{sort: "rate"}, p.slave, p.slave, false)
			}()
			p.wants(t, enterScreen)
			p.wants(t, "waiting")
			next <- topOfPeers(4)
			p.wants(t, "by rate")
			p.typeKeys(t, "s")
			p.wants(t, "by drops")
			p.typeKeys(t, "s")
			p.wants(t, "by rtt")
			p.resize(t, 20, 10)
			next <- topOfPeers(4)
			p.wants(t, "\x1b[H"+"weft top on host1, 2"+clearLine+"\r\n")
			end(t, p, next)
			p.wants(t, leaveScreen)
			if err := <-ended; (err != nil) != (name == "the daemon stops") || err != nil && !errors.Is(err, api.ErrTopEnded) {
				t.Errorf("the error is %v", err)
			}
			after, err := unix.IoctlGetTermios(int(p.slave.Fd()), unix.TCGETS)
			if err != nil || *after != *before {
				t.Errorf("the terminal is %+v, was %+v (%v)", after, before, err)
			}
		})
	}
}

// TestTopOutput: without a terminal there is plain text, with --json a document a line. Both end with --count.
func TestTopOutput(t *testing.T) {
	for _, args := range [][]string{{"top"}, {"top", "--json"}} {
		next := make(chan api.Top, 2)
		client := topDaemon(t, next)
		next <- topOfPeers(1)
		next <- topOfPeers(2)
		var out, errs bytes.Buffer
		if code := run(t.Context(), append(args, "--count", "2", "--socket", client.Socket()), &out, &errs); code != 0 {
			t.Errorf("%v: exit code %d: %s", args, code, errs.String())
		}
		if n := strings.Count(out.String(), "host1"); n != 2 || strings.Contains(out.String(), "\x1b") {
			t.Errorf("%v: %s", args, out.String())
		}
		if args[len(args)-1] == "--json" && strings.Count(out.String(), "\n") != 2 {
			t.Errorf("not a document a line: %s", out.String())
		}
	}
}
