package e2e

import (
	"encoding/binary"
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/ether"
)

// testType is the EtherType of the tests' frames: local experimental 1 (IEEE 802, RFC 9542).
const testType = 0x88b5

// rawSocket sends and receives frames of testType on a pod's eth0.
type rawSocket struct {
	file *os.File
	mac  ether.Addr
}

// openAll opens a socket in each pod. The sockets are closed at the end of the test.
func openAll(t *testing.T, pods []*pod) []*rawSocket {
	t.Helper()
	sockets := make([]*rawSocket, 0, len(pods))
	for _, p := range pods {
		s := &rawSocket{}
		if err := p.Do(func() error { return s.open() }); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.file.Close() })
		sockets = append(sockets, s)
	}
	return sockets
}

func (s *rawSocket) open() error {
	link, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	s.mac = ether.Addr(link.HardwareAddr)
	protocol := uint16(testType<<8&0xff00 | testType>>8)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(protocol))
	if err != nil {
		return err
	}
	s.file = os.NewFile(uintptr(fd), "packet socket")
	// Promiscuous mode receives multicast frames without joining groups.
	mreq := unix.PacketMreq{Ifindex: int32(link.Index), Type: unix.PACKET_MR_PROMISC}
	return errors.Join(
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: link.Index}),
		unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &mreq),
	)
}

func (s *rawSocket) send(t *testing.T, to ether.Addr, text string) {
	t.Helper()
	s.sendFrom(t, s.mac, to, text)
}

func (s *rawSocket) sendFrom(t *testing.T, from, to ether.Addr, text string) {
	t.Helper()
	frame := append(to[:], from[:]...)
	frame = binary.BigEndian.AppendUint16(frame, testType)
	frame = append(frame, text...)
	frame = append(frame, make([]byte, max(0, 60-len(frame)))...)
	if _, err := s.file.Write(frame); err != nil {
		t.Fatal(err)
	}
}

// receiveUntil returns the texts of the received frames, up to and including last.
func (s *rawSocket) receiveUntil(t *testing.T, last string) []string {
	t.Helper()
	if err := s.file.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	var texts []string
	buf := make([]byte, 2048)
	for {
		n, err := s.file.Read(buf)
		if err != nil {
			t.Fatalf("got %q, then %v, while waiting for %q", texts, err, last)
		}
		text := string(trimZeros(buf[ether.HeaderLen:n]))
		texts = append(texts, text)
		if text == last {
			return texts
		}
	}
}

func trimZeros(b []byte) []byte {
	for len(b) > 0 && b[len(b)-1] == 0 {
		b = b[:len(b)-1]
	}
	return b
}

func mac(t *testing.T, s string) ether.Addr {
	t.Helper()
	a, err := ether.ParseAddr(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}
