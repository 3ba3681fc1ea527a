package tap

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"weft/tap/virtio"
)

// offloads are what is asked of the kernel, the most first: each step leaves out what an older kernel does not know. USO
// came with Linux 6.2; all the others are older than any kernel that weft runs on, but may be built or patched out.
var offloads = []struct {
	flags    int
	features virtio.Features
}{
	{
		unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN | unix.TUN_F_USO4 | unix.TUN_F_USO6,
		virtio.FeatureChecksum | virtio.FeatureTSO4 | virtio.FeatureTSO6 | virtio.FeatureUSO,
	},
	{
		unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN,
		virtio.FeatureChecksum | virtio.FeatureTSO4 | virtio.FeatureTSO6,
	},
	{unix.TUN_F_CSUM, virtio.FeatureChecksum},
}

// negotiate tells the kernel what it may leave undone in the frames that it hands over, and returns what it agreed to:
// the same that it takes undone. It speaks for the whole device, whichever of its descriptors file is.
func negotiate(file *os.File) (virtio.Features, error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return 0, err
	}
	for _, o := range offloads {
		var refused error
		if err := raw.Control(func(fd uintptr) { refused = unix.IoctlSetInt(int(fd), unix.TUNSETOFFLOAD, o.flags) }); err != nil {
			return 0, err
		}
		switch {
		case refused == nil:
			return o.features, nil
		case !errors.Is(refused, unix.EINVAL):
			return 0, fmt.Errorf("TUNSETOFFLOAD: %w", refused)
		}
	}
	return 0, nil // a kernel that finishes every frame itself
}

// limitWrites bounds the bytes that a queue may have on the host's stack, not yet taken by a pod: without it, the kernel
// takes whatever is written, and a host that cannot keep up fills its memory with frames.
func limitWrites(file *os.File, size int) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var refused error
	err = raw.Control(func(fd uintptr) { refused = unix.IoctlSetPointerInt(int(fd), unix.TUNSETSNDBUF, size) })
	if err = errors.Join(err, refused); err != nil {
		return fmt.Errorf("TUNSETSNDBUF: %w", err)
	}
	return nil
}
