package underlay

import (
	"encoding/binary"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Intercept calls f for each message before it goes to the kernel, with its segment size or 0. An error of f replaces
// the result of the kernel. Call it before the first WriteBatch.
func Intercept(u *UDP, f func(segmentSize int) unix.Errno) {
	u.out.call = func(fd uintptr, m *message, n int) (int, unix.Errno) {
		for i, m := range unsafe.Slice(m, n) {
			if errno := f(messageSize(&m.header)); errno != 0 && i == 0 {
				return 0, errno
			} else if errno != 0 {
				n = i
				break
			}
		}
		return sendmmsg(fd, m, n)
	}
}

// messageSize returns the segment size of a message to send.
func messageSize(h *unix.Msghdr) int {
	if h.Control == nil {
		return 0
	}
	level, kind, data, _, _ := nextControl(unsafe.Slice(h.Control, h.Controllen))
	if level != unix.SOL_UDP || kind != unix.UDP_SEGMENT {
		return 0
	}
	return int(binary.NativeEndian.Uint16(data))
}

// CountReads counts how often u is read. Call it before the first ReadBatch.
func CountReads(u *UDP) (looks *atomic.Int64) {
	looks = new(atomic.Int64)
	u.in.read = func(fd uintptr) {
		looks.Add(1)
		u.in.receive(fd)
	}
	return looks
}

// Control calls f with the descriptor of u.
func Control(u *UDP, f func(fd int)) error { return u.file.Control(func(fd uintptr) { f(int(fd)) }) }
