package underlay_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"weft/router/underlay"
	"weft/tap/taptest"
)

// ownLoopback moves the test into a namespace with a loopback interface.
func ownLoopback(t *testing.T) {
	t.Helper()
	taptest.InNamespace(t)
	ip(t, "link set lo up")
}

// arrivals sends count datagrams from each of the senders to the port of the queues at ip, and returns for each queue the numbers of the
// senders, in the order in which their datagrams arrived.
func arrivals(t *testing.T, queues, senders []*underlay.UDP, ip string, count int) [][]byte {
	t.Helper()
	for n := range count {
		for i, u := range senders {
			d := []underlay.Datagram{{Addr: at(queues[0], ip), Buf: []byte{byte(i), byte(n)}}}
			if _, err := u.WriteBatch(d); err != nil {
				t.Fatal(err)
			}
		}
	}
	next := make([]byte, len(senders))
	got := make([][]byte, len(queues))
	for q, u := range queues {
		batch := make([]underlay.Datagram, 64)
		for {
			for i := range batch {
				batch[i].Buf = make([]byte, 64)
			}
			n, err := u.ReadBatch(batch) // over loopback a datagram has arrived when it was sent
			if err != nil || n == 0 {
				break
			}
			for _, d := range batch[:n] {
				for at := 0; at < len(d.Buf); at += 2 {
					sender, number := d.Buf[at], d.Buf[at+1]
					if number != next[sender] {
						t.Errorf("queue %d: datagram %d of sender %d, want %d", q, number, sender, next[sender])
					}
					next[sender]++
					got[q] = append(got[q], sender)
				}
			}
		}
	}
	for i, n := range next {
		if int(n) != count {
			t.Errorf("%d datagrams of sender %d arrived, want %d", n, i, count)
		}
	}
	return got
}

// TestSteering: the entropy ports of a node reach the sockets with their numbers, over IPv4 and IPv6, each one in order. What comes from a
// data port, or from any other port, arrives as well. When one socket is closed, the others receive everything.
func TestSteering(t *testing.T) {
	for name, ip := range map[string]string{"IPv4": "127.0.0.1", "IPv6": "::1"} {
		for _, n := range []int{2, 3, 4, 7, 8} {
			t.Run(name, func(t *testing.T) {
				ownLoopback(t)
				if ip == "::1" && !hasIPv6() {
					t.Skip("the host has no IPv6")
				}
				queues := listenQueues(t, underlay.Config{Port: 6784}, n)
				for _, u := range queues {
					if !u.Features().Has(underlay.Steering) {
						t.Fatalf("features %s", u.Features())
					}
				}
				ports, err := underlay.ListenEntropy(underlay.Config{Port: 6784}, n)
				if err != nil {
					t.Fatal(err)
				}
				const count = 20
				for q, from := range arrivals(t, queues, ports, ip, count) {
					if !slices.Equal(from, slices.Repeat([]byte{byte(q)}, count)) {
						t.Errorf("queue %d of %d got datagrams of the ports %v", q, n, from)
					}
				}
				senders := append([]*underlay.UDP{queues[0], listen(t, underlay.Config{})}, ports...)
				arrivals(t, queues, senders, ip, count)
				queues[n-1].Close()
				arrivals(t, queues[:n-1], senders, ip, count)
				for _, u := range ports {
					u.Close()
				}
			})
		}
	}
}

// TestDataPortsSpread: what comes from the data ports of many nodes spreads over the sockets, however their addresses are assigned.
func TestDataPortsSpread(t *testing.T) {
	ownLoopback(t)
	const nodes, n = 24, 8
	queues := listenQueues(t, underlay.Config{Port: 6784}, n)
	for _, plan := range []string{"10.0.%d.8", "10.1.0.%d", "10.2.%d.0"} {
		reached := 0
		for k := range nodes {
			ip(t, "addr add "+fmt.Sprintf(plan, 8*(k+1))+"/32 dev lo")
			queues[0].SetSource(netip.MustParseAddr(fmt.Sprintf(plan, 8*(k+1))))
			if _, err := queues[0].WriteBatch([]underlay.Datagram{{Addr: at(queues[0], "127.0.0.1"), Buf: []byte{1}}}); err != nil {
				t.Fatal(err)
			}
		}
		batch := []underlay.Datagram{{Buf: make([]byte, 64)}}
		for _, u := range queues {
			n, err := u.ReadBatch(batch)
			if err != nil {
				t.Fatal(err)
			}
			reached += n
			for n > 0 {
				n, _ = u.ReadBatch(batch)
			}
		}
		if reached < n/2 {
			t.Errorf("%s: %d nodes reach %d of %d sockets", plan, nodes, reached, n)
		}
	}
}

// TestSteeringWithOptions: datagrams that the program does not understand arrive all the same.
func TestSteeringWithOptions(t *testing.T) {
	ownLoopback(t)
	queues := listenQueues(t, underlay.Config{}, 4)
	for name, ip := range map[string]string{"IPv4": "127.0.0.1", "IPv6": "::1"} {
		sender := listen(t, underlay.Config{})
		err := underlay.Control(sender, func(fd int) {
			var err error
			if ip == "::1" {
				err = unix.SetsockoptString(fd, unix.IPPROTO_IPV6, unix.IPV6_DSTOPTS, "\x00\x00\x01\x04\x00\x00\x00\x00")
			} else {
				err = unix.SetsockoptString(fd, unix.IPPROTO_IP, unix.IP_OPTIONS, "\x01\x01\x01\x01")
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		arrivals(t, queues, []*underlay.UDP{sender}, ip, 10)
	}
}

// TestEntropyPortsOfAnEphemeralPort: they leave the ports of gossip, data and the kernel path alone.
func TestEntropyPortsOfAnEphemeralPort(t *testing.T) {
	ownLoopback(t)
	for _, data := range []uint16{33001, 40001, 50001} {
		for range 30 {
			ports, err := underlay.ListenEntropy(underlay.Config{Port: data}, 4)
			if err != nil {
				t.Fatal(err)
			}
			for _, u := range ports {
				if port := u.LocalAddr().Port(); port >= data-1 && port <= data+1 {
					t.Errorf("data port %d: entropy port %d", data, port)
				}
				u.Close()
			}
		}
	}
}

// TestEntropyPorts: they differ, are aligned with the data port where possible, and busy candidates are no error.
func TestEntropyPorts(t *testing.T) {
	ownLoopback(t)
	const data, n, step = 6784, 3, 5040
	seen := map[uint16]bool{}
	aligned, others := 0, 0
	for range 10 {
		ports, err := underlay.ListenEntropy(underlay.Config{Port: data}, n)
		if err != nil {
			t.Fatal(err)
		}
		for i, u := range ports {
			t.Cleanup(func() { u.Close() })
			port := u.LocalAddr().Port()
			if seen[port] || port == data {
				t.Errorf("port %d twice", port)
			}
			seen[port] = true
			if (int(port)-data-i)%step == 0 {
				aligned++
			} else {
				others++
			}
			if u.Features().Has(underlay.GRO) {
				t.Errorf("features %s of a socket with small buffers", u.Features())
			}
		}
	}
	if aligned < 5*n || others == 0 {
		t.Errorf("%d aligned ports, %d others", aligned, others)
	}
	if _, err := underlay.ListenEntropy(underlay.Config{Source: netip.MustParseAddr("192.0.2.99")}, 1); !errors.Is(err, underlay.ErrSource) {
		t.Errorf("a source address that the host does not have: %v", err)
	}
}
