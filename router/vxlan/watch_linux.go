package vxlan

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

const (
	// maxWatched is the longest frame in bytes that the kernel returns: a superframe.
	maxWatched = 64<<10 + ether.HeaderLen
	// tagLen is the length of a VLAN tag in bytes (IEEE 802.1Q).
	tagLen = 4
	// auxLen is the length of struct tpacket_auxdata: status, len, snaplen of 4 bytes each; mac, net, vlan_tci,
	// vlan_tpid of 2.
	auxLen = 20
	// watchEntries is the shortest time between two reads of the device's table for an address that is not in it.
	watchEntries = time.Second
)

// Watched is a frame that the kernel carries, without the headers of VXLAN.
type Watched struct {
	Peer  peer.ID // zero: all peers, or unknown
	Sent  bool
	Frame []byte // valid until the function f of Watch returns
	Lost  uint64 // frames that the kernel dropped since the last one, as too many waited
}

// Watch calls f for every frame that the device sends and receives, except for probes, until ctx ends. Superframes are
// not cut, and checksums may be incomplete. Without a Watch there is no cost.
func (d *Device) Watch(ctx context.Context, f func(Watched)) error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("vxlan: packet socket: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1); err != nil {
		return errors.Join(fmt.Errorf("vxlan: packet socket: %w", err), unix.Close(fd))
	}
	all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL)) // htons
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: d.index}); err != nil {
		return errors.Join(fmt.Errorf("vxlan: packet socket: %w", err), unix.Close(fd))
	}
	file := os.NewFile(uintptr(fd), "vxlan watch")
	defer file.Close()
	defer context.AfterFunc(ctx, func() { _ = file.SetReadDeadline(time.Unix(1, 0)) })()
	raw, err := file.SyscallConn()
	if err != nil {
		return fmt.Errorf("vxlan: packet socket: %w", err)
	}
	w := watch{device: d, buf: make([]byte, tagLen+maxWatched), aux: make([]byte, unix.CmsgSpace(auxLen)), peers: map[ether.Addr]peer.ID{}}
	for ctx.Err() == nil {
		var read error
		err := raw.Read(func(fd uintptr) bool {
			read = w.next(int(fd), f)
			return !errors.Is(read, unix.EAGAIN)
		})
		if err = errors.Join(err, ignore(ignore(read, unix.ENETDOWN), unix.EAGAIN)); err != nil && ctx.Err() == nil {
			return fmt.Errorf("vxlan: watch %s: %w", d.cfg.Name, err)
		}
	}
	return nil
}

// watch is the state of a Watch.
type watch struct {
	device *Device
	buf    []byte                 // space for a tag, then the frame
	aux    []byte                 // the control message of the frame
	peers  map[ether.Addr]peer.ID // from the last read of the device's table
	asked  time.Time              // when the table was read
}

// next reads one frame; the error is EAGAIN if there is none.
func (w *watch) next(fd int, f func(Watched)) error {
	n, said, _, from, err := unix.Recvmsg(fd, w.buf[tagLen:], w.aux, 0)
	if err != nil {
		return err
	}
	link, ok := from.(*unix.SockaddrLinklayer)
	if !ok || n < ether.HeaderLen || ether.Type(w.buf[tagLen:]) == probeType {
		return nil
	}
	frame := tagged(w.buf[:tagLen+n], tagOf(w.aux[:said]))
	v := Watched{Frame: frame, Sent: link.Pkttype == unix.PACKET_OUTGOING}
	if mac := ether.Destination(frame); !v.Sent {
		v.Peer = w.peerOf(ether.Source(frame))
	} else if !mac.IsMulticast() {
		v.Peer = w.peerOf(mac)
	}
	if stats, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
		v.Lost = uint64(stats.Drops)
	}
	f(v)
	return nil
}

// peerOf returns the peer behind an address, the zero ID if the device does not know it.
func (w *watch) peerOf(mac ether.Addr) peer.ID {
	id, known := w.peers[mac]
	if known || time.Since(w.asked) < watchEntries {
		return id
	}
	w.asked = time.Now()
	entries, err := w.device.Entries()
	if err != nil {
		return peer.ID{}
	}
	clear(w.peers)
	for _, e := range entries {
		w.peers[e.MAC] = e.Peer
	}
	return w.peers[mac]
}

// tagOf returns the VLAN tag that the kernel removed from a frame, nil if there was none (packet(7), PACKET_AUXDATA).
func tagOf(aux []byte) (tag []byte) {
	messages, err := unix.ParseSocketControlMessage(aux)
	if err != nil {
		return nil
	}
	for _, m := range messages {
		if m.Header.Level != unix.SOL_PACKET || m.Header.Type != unix.PACKET_AUXDATA || len(m.Data) < auxLen {
			continue
		}
		status, kind := binary.NativeEndian.Uint32(m.Data), uint16(unix.ETH_P_8021Q)
		if status&unix.TP_STATUS_VLAN_VALID == 0 {
			return nil
		}
		if status&unix.TP_STATUS_VLAN_TPID_VALID != 0 {
			kind = binary.NativeEndian.Uint16(m.Data[18:])
		}
		return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, kind), binary.NativeEndian.Uint16(m.Data[16:]))
	}
	return nil
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
