package lab

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Constants of linux/ethtool.h that x/sys lacks.
const (
	featureSet = 4   // ETH_SS_FEATURES
	nameLength = 32  // ETH_GSTRING_LEN
	maxNames   = 128 // twice the number of features: the kernel writes all names, and ignores the size in the request
)

// setFeatures switches the offloads of an interface, in the calling thread's namespace, for which want returns ok. Other
// offloads do not change.
func setFeatures(ifname string, want func(feature string) (on, ok bool)) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("ethtool's socket: %w", err)
	}
	defer unix.Close(fd)
	names, err := featureNames(fd, ifname)
	if err != nil {
		return err
	}
	// struct ethtool_sfeatures: command, number of blocks, and per block of 32 features two words: valid bits, values.
	blocks := (len(names) + 31) / 32
	words := make([]uint32, 2+2*blocks)
	words[0], words[1] = unix.ETHTOOL_SFEATURES, uint32(blocks)
	for i, name := range names {
		if on, ok := want(name); ok {
			words[2+2*(i/32)] |= 1 << (i % 32)
			if on {
				words[3+2*(i/32)] |= 1 << (i % 32)
			}
		}
	}
	buf := make([]byte, 0, 4*len(words))
	for _, w := range words {
		buf = binary.NativeEndian.AppendUint32(buf, w)
	}
	return ethtool(fd, ifname, buf)
}

// featureNames returns the names of the kernel's features in the order of their bits.
func featureNames(fd int, ifname string) ([]string, error) {
	// struct ethtool_gstrings: command, set, number, and the names, padded with zeros. The kernel overwrites the number.
	buf := make([]byte, 12+maxNames*nameLength)
	binary.NativeEndian.PutUint32(buf[0:], unix.ETHTOOL_GSTRINGS)
	binary.NativeEndian.PutUint32(buf[4:], featureSet)
	if err := ethtool(fd, ifname, buf); err != nil {
		return nil, err
	}
	n := min(int(binary.NativeEndian.Uint32(buf[8:])), maxNames)
	names := make([]string, n)
	for i := range names {
		name := buf[12+i*nameLength:][:nameLength]
		end := bytes.IndexByte(name, 0)
		if end < 0 {
			end = nameLength
		}
		names[i] = string(name[:end])
	}
	return names, nil
}

// ethtoolRequest is struct ifreq of linux/if.h with a pointer, padded to the size that the kernel copies.
type ethtoolRequest struct {
	name [unix.IFNAMSIZ]byte
	data unsafe.Pointer
	_    [24 - unsafe.Sizeof(uintptr(0))]byte
}

// ethtool executes a command on an interface. The kernel overwrites command with its answer.
func ethtool(fd int, ifname string, command []byte) error {
	request := ethtoolRequest{data: unsafe.Pointer(&command[0])}
	copy(request.name[:unix.IFNAMSIZ-1], ifname)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	if errno != 0 {
		return fmt.Errorf("offloads of %s: %w", ifname, errno)
	}
	return nil
}

// plainFeature returns the offloads for setFeatures. With plain, the kernel segments packets in software before the
// interface sends them, so sockets may still send large ones. gro is whether received packets are coalesced.
func plainFeature(plain, gro bool) func(string) (on, ok bool) {
	return func(feature string) (on, ok bool) {
		switch {
		case feature == "rx-gro":
			return gro, true
		case feature == "tx-generic-segmentation":
			return false, false
		case strings.HasPrefix(feature, "tx-") && strings.HasSuffix(feature, "-segmentation"), feature == "tx-gso-list":
			return !plain, true
		default:
			return false, false
		}
	}
}
