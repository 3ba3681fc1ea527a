package e2e

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"weft/internal/nettest"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
)

// forger sends UDP datagrams over IPv4 from a host, with any source address. It is for one goroutine.
type forger struct {
	fd  int
	buf []byte
}

func newForger(t *testing.T, from *nettest.Host) *forger {
	t.Helper()
	f := &forger{}
	if err := from.Do(func() (err error) {
		f.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW) // raw(7): the sender writes the IP header
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(f.fd) })
	return f
}

// send sends one datagram, without a checksum, which is optional for UDP over IPv4 (RFC 768).
func (f *forger) send(t *testing.T, from, to netip.AddrPort, payload []byte) {
	t.Helper()
	src, dst := from.Addr().As4(), to.Addr().As4()
	length := uint16(8 + len(payload))
	b := append(f.buf[:0], 0x45, 0, 0, 0, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0) // the kernel fills in length, id and checksum
	b = append(append(b, src[:]...), dst[:]...)
	for _, field := range []uint16{from.Port(), to.Port(), length, 0} {
		b = binary.BigEndian.AppendUint16(b, field)
	}
	f.buf = append(b, payload...)
	if err := unix.Sendto(f.fd, f.buf, 0, &unix.SockaddrInet4{Addr: dst}); err != nil {
		t.Fatal(err)
	}
}

// waitEmpty waits until a node has read all datagrams from its data port.
func waitEmpty(t *testing.T, n *cluster.Node) {
	t.Helper()
	labtest.Until(t, patience, func() error {
		for line := range strings.Lines(labtest.Run(t, n.Space, "ss", "-Hlun", "sport", "=", fmt.Sprint(dataPort))) {
			if waiting := strings.Fields(line)[1]; waiting != "0" {
				return fmt.Errorf("%s has %s bytes to read", n.Label(), waiting)
			}
		}
		return nil
	})
}
