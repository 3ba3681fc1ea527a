package underlay_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"weft/router/underlay"
	"weft/router/underlay/underlaytest"
)

func listenQueues(t *testing.T, cfg underlay.Config, n int) []*underlay.UDP {
	t.Helper()
	queues, err := underlay.ListenQueues(cfg, n)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range queues {
		t.Cleanup(func() { u.Close() })
	}
	return queues
}

// TestQueues: all datagrams from one port arrive at one queue, in order, and all queues receive some.
func TestQueues(t *testing.T) {
	const senders, each = 64, 10
	queues := listenQueues(t, underlay.Config{}, 4)
	for range senders {
		u := listen(t, underlay.Config{})
		for n := range each {
			if _, err := u.WriteBatch([]underlay.Datagram{{Addr: at(queues[0], "127.0.0.1"), Buf: []byte{byte(n)}}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	var total atomic.Int64
	var wg sync.WaitGroup
	for i, u := range queues {
		if u.LocalAddr() != queues[0].LocalAddr() {
			t.Errorf("queue %d is at %s", i, u.LocalAddr())
		}
		wg.Go(func() {
			next, batch := map[uint16]byte{}, []underlay.Datagram{{Buf: make([]byte, 10)}}
			for {
				if _, err := underlaytest.Read(u, batch); err != nil {
					break
				}
				port := batch[0].Addr.Port()
				if batch[0].Buf[0] != next[port] {
					t.Errorf("queue %d: datagram %d of %d, want %d", i, batch[0].Buf[0], port, next[port])
				}
				next[port]++
				if total.Add(1) == senders*each {
					for _, u := range queues {
						u.Close()
					}
				}
			}
			if len(next) == 0 {
				t.Errorf("queue %d got nothing", i)
			}
		})
	}
	wg.Wait()
}

// TestQueuesPortInUse: neither a socket nor a group of sockets gets a port that another group uses, at any time.
func TestQueuesPortInUse(t *testing.T) {
	group, alone := listenQueues(t, underlay.Config{}, 2), listen(t, underlay.Config{})
	for _, taken := range []*underlay.UDP{group[0], alone} {
		cfg := underlay.Config{Port: taken.LocalAddr().Port()}
		if _, err := underlay.ListenQueues(cfg, 2); !errors.Is(err, underlay.ErrPortInUse) {
			t.Errorf("a second group: %v", err)
		}
		if _, err := underlay.Listen(cfg); !errors.Is(err, underlay.ErrPortInUse) {
			t.Errorf("a second socket: %v", err)
		}
	}
	if _, err := underlay.ListenQueues(underlay.Config{}, 0); err == nil {
		t.Error("no queues were opened")
	}
}

// TestQueuesRace: if many request the same port at the same time, one gets it.
func TestQueuesRace(t *testing.T) {
	for range 20 {
		free := listen(t, underlay.Config{})
		port := free.LocalAddr().Port()
		free.Close()
		var winners atomic.Int64
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				queues, err := underlay.ListenQueues(underlay.Config{Port: port}, 3)
				switch {
				case err == nil:
					winners.Add(1)
				case !errors.Is(err, underlay.ErrPortInUse):
					t.Error(err)
				}
				t.Cleanup(func() {
					for _, u := range queues {
						u.Close()
					}
				})
			})
		}
		wg.Wait()
		if winners.Load() != 1 {
			t.Fatalf("%d have the port", winners.Load())
		}
	}
}

// TestQueuesOtherProcess runs itself in another process, which finds the port in use.
func TestQueuesOtherProcess(t *testing.T) {
	const variable = "WEFT_TEST_PORT"
	if value, ok := os.LookupEnv(variable); ok {
		port, err := strconv.ParseUint(value, 10, 16)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := underlay.ListenQueues(underlay.Config{Port: uint16(port)}, 2); !errors.Is(err, underlay.ErrPortInUse) {
			t.Errorf("ListenQueues: %v", err)
		}
		return
	}
	queues := listenQueues(t, underlay.Config{}, 2)
	cmd := exec.CommandContext(context.Background(), os.Args[0], "-test.run=^TestQueuesOtherProcess$")
	cmd.Env = slices.Concat(os.Environ(), []string{variable + "=" + strconv.Itoa(int(queues[0].LocalAddr().Port()))})
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
