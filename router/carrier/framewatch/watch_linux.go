// Package framewatch copies frames that the kernel carries, all of them or a sample, from a packet socket on an interface. Without a
// watch there is no cost.
package framewatch

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/ether"
	"weft/internal/peer"
)

// Interface is where frames are seen.
type Interface struct {
	Name  string
	Index int
	// Ends finds the other end of each frame. One goroutine calls it.
	Ends Ends
}

// Ends knows the nodes at the other ends of frames.
type Ends interface {
	// Other returns the peer of a frame, the zero ID for all peers or an unknown one, and whether the frame is sent to it. outgoing says
	// that the interface sends the frame. Frames that are not carried to or from peers are not ok.
	Other(frame []byte, outgoing bool) (id peer.ID, sent, ok bool)
}

const (
	// maxWatched is the longest frame in bytes that the kernel returns: a superframe.
	maxWatched = 64<<10 + ether.HeaderLen
	// tagLen is the length of a VLAN tag in bytes (IEEE 802.1Q).
	tagLen = 4
	// auxLen is the length of struct tpacket_auxdata: status, len, snaplen of 4 bytes each; mac, net, vlan_tci,
	// vlan_tpid of 2.
	auxLen = 20
)

// Watched is a frame that the kernel carries, as pods send it.
type Watched struct {
	Peer  peer.ID // zero: all peers, or unknown
	Sent  bool
	Frame []byte // valid until the function f of Watch returns
	Lost  uint64 // frames that the kernel dropped since the last one, as too many waited
}

// Watch calls f for every frame that is carried, except for probes, until ctx ends. Superframes are not cut, and checksums may be
// incomplete.
func Watch(ctx context.Context, at Interface, f func(Watched)) error {
	file, err := openWatch(at.Index, func(int) error { return nil })
	if err != nil {
		return err
	}
	defer file.Close()
	defer context.AfterFunc(ctx, func() { _ = file.SetReadDeadline(time.Unix(1, 0)) })()
	w := newWatch(at, tagLen+maxWatched)
	for ctx.Err() == nil {
		if err := readFrame(file, func(fd int) error { return w.next(fd, f) }); err != nil && ctx.Err() == nil {
			return fmt.Errorf("framewatch: watch %s: %w", at.Name, err)
		}
	}
	return nil
}

// openWatch returns a packet socket for all frames of an interface, with auxiliary data. prepare may set options before the first
// frame arrives. The caller closes the file.
func openWatch(index int, prepare func(fd int) error) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("framewatch: packet socket: %w", err)
	}
	all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL)) // htons
	if err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1); err == nil {
		err = prepare(fd)
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("framewatch: packet socket: %w", err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "frames"), nil
}

// readFrame waits until next reads something, or the deadline of the file passes. While the device is down, there is nothing.
func readFrame(file *os.File, next func(fd int) error) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return fmt.Errorf("framewatch: packet socket: %w", err)
	}
	var read error
	err = raw.Read(func(fd uintptr) bool {
		read = next(int(fd))
		return !errors.Is(read, unix.EAGAIN)
	})
	if errors.Is(read, unix.ENETDOWN) || errors.Is(read, unix.EAGAIN) {
		read = nil
	}
	return errors.Join(err, read)
}

// watch is the state of a Watch, or of a SampleFrames.
type watch struct {
	at  Interface
	buf []byte // space for a tag, then the frame; or a virtio header, then the frame
	aux []byte // the control message of the frame
}

func newWatch(at Interface, size int) watch {
	return watch{at: at, buf: make([]byte, size), aux: make([]byte, unix.CmsgSpace(auxLen))}
}

// next reads one frame; the error is EAGAIN if there is none.
func (w *watch) next(fd int, f func(Watched)) error {
	n, said, _, from, err := unix.Recvmsg(fd, w.buf[tagLen:], w.aux, 0)
	if err != nil {
		return err
	}
	link, ok := from.(*unix.SockaddrLinklayer)
	if !ok || n < ether.HeaderLen {
		return nil
	}
	frame := tagged(w.buf[:tagLen+n], tagOf(auxOf(w.aux[:said])))
	if id, sent, carried := w.at.Ends.Other(frame, link.Pkttype == unix.PACKET_OUTGOING); carried {
		f(Watched{Peer: id, Sent: sent, Frame: frame, Lost: lostFrames(fd)})
	}
	return nil
}

// lostFrames returns how many frames the kernel has dropped since the last call, as too many waited.
func lostFrames(fd int) uint64 {
	stats, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return 0
	}
	return uint64(stats.Drops)
}

// auxOf returns the auxiliary data of a frame: a struct tpacket_auxdata, nil if there is none (packet(7), PACKET_AUXDATA).
func auxOf(control []byte) []byte {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_PACKET && m.Header.Type == unix.PACKET_AUXDATA && len(m.Data) >= auxLen {
			return m.Data
		}
	}
	return nil
}

// tagOf returns the VLAN tag that the kernel removed from a frame, nil if there was none.
func tagOf(aux []byte) (tag []byte) {
	if aux == nil {
		return nil
	}
	status, kind := binary.NativeEndian.Uint32(aux), uint16(unix.ETH_P_8021Q)
	if status&unix.TP_STATUS_VLAN_VALID == 0 {
		return nil
	}
	if status&unix.TP_STATUS_VLAN_TPID_VALID != 0 {
		kind = binary.NativeEndian.Uint16(aux[18:])
	}
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, kind), binary.NativeEndian.Uint16(aux[16:]))
}

// tagged returns the frame in buf, which lies behind space for a tag, with the tag if there is one.
func tagged(buf, tag []byte) []byte {
	if len(tag) == 0 {
		return buf[tagLen:]
	}
	const addrs = 2 * len(ether.Addr{})
	copy(buf, buf[tagLen:tagLen+addrs])
	copy(buf[addrs:], tag)
	return buf
}
