package framewatch

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"weft/internal/ether"
	"weft/internal/peer"
	"weft/tap/virtio"
)

const (
	// sampledLen is how many bytes of a sampled frame are returned: with all headers, up to that of TCP.
	sampledLen = 256
	// sampleBuffer is the room in bytes for frames that wait. A superframe counts with all its memory, though only its headers are read.
	sampleBuffer = 8 << 20
	// sampleWake is how often Sample asks for N while no frame is in the sample.
	sampleWake = 250 * time.Millisecond
)

// Sampled is a frame in the sample of Sample.
type Sampled struct {
	Peer    peer.ID // zero: all peers, or unknown
	Sent    bool
	Frame   []byte // its beginning, valid until the function f of Sample returns
	Length  int    // of the whole frame in bytes
	Segment int    // payload in bytes of each segment of a superframe, 0 for a single frame
	Weight  int    // the number of frames that it stands for
}

// Sample calls f for one of N frames that are carried, except for probes, until ctx ends. The kernel chooses the frames at random. every
// returns N, a power of two, and may change it.
func Sample(ctx context.Context, at Interface, every func() int, f func(Sampled)) error {
	s := sampling{watch: newWatch(at, virtio.HeaderLen+sampledLen), every: every()}
	file, err := openWatch(at.Index, func(fd int) error {
		return errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1),
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, sampleBuffer),
			SetFilter(fd, oneOf(s.every)),
		)
	})
	if err != nil {
		return err
	}
	defer file.Close()
	for ctx.Err() == nil {
		err := file.SetReadDeadline(time.Now().Add(sampleWake))
		if err == nil {
			err = readFrame(file, func(fd int) error {
				if err := s.follow(fd, every(), f); err != nil {
					return err
				}
				return s.next(fd, f)
			})
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("framewatch: sample %s: %w", at.Name, err)
		}
	}
	return nil
}

// sampling is the state of a SampleFrames.
type sampling struct {
	watch
	every int // N of the filter
}

// follow sets the filter for another N. Before that it stops the sample and reads the frames that wait, which were chosen with the
// former N.
func (s *sampling) follow(fd, every int, f func(Sampled)) error {
	if every == s.every {
		return nil
	}
	err := SetFilter(fd, []bpf.Instruction{bpf.RetConstant{Val: 0}})
	for err == nil {
		err = s.next(fd, f)
	}
	if !errors.Is(err, unix.EAGAIN) {
		return err
	}
	s.every = every
	return SetFilter(fd, oneOf(every))
}

// next reads one frame; the error is EAGAIN if there is none. Frames that were lost count as the one that comes after them.
func (s *sampling) next(fd int, f func(Sampled)) error {
	n, said, _, from, err := unix.Recvmsg(fd, s.buf, s.aux, 0)
	if errors.Is(err, unix.EINVAL) {
		return nil // the kernel has no virtio header for a superframe of this kind
	}
	if err != nil {
		return err
	}
	link, ok := from.(*unix.SockaddrLinklayer)
	aux := auxOf(s.aux[:said])
	if !ok || aux == nil || n < virtio.HeaderLen+ether.HeaderLen {
		return nil
	}
	offload, frame, err := virtio.Parse(s.buf[:n])
	if err != nil {
		return err
	}
	id, sent, carried := s.at.Ends.Other(frame, link.Pkttype == unix.PACKET_OUTGOING)
	if !carried {
		return nil
	}
	v := Sampled{
		Peer: id, Sent: sent, Frame: frame, Length: int(binary.NativeEndian.Uint32(aux[4:])), Weight: s.every * int(1+lostFrames(fd)),
	}
	if offload.GSOType != virtio.GSONone {
		v.Segment = int(offload.GSOSize)
	}
	f(v)
	return nil
}

// oneOf returns a filter that passes the headers of one of n frames, n a power of two, at random.
func oneOf(n int) []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtRand},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: uint32(n - 1)},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0, SkipTrue: 1},
		bpf.RetConstant{Val: sampledLen},
		bpf.RetConstant{Val: 0},
	}
}

// SetFilter sets the filter of a packet socket, in place of an earlier one. It returns the bytes of a frame that are kept.
func SetFilter(fd int, program []bpf.Instruction) error {
	raw, err := bpf.Assemble(program)
	if err != nil {
		return err
	}
	code := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		code[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]})
}
