package tap

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"weft/internal/poll"
	"weft/tap/virtio"
)

// offloads are the sets of offloads to request from the kernel, the largest first: each step leaves out offloads that
// an older kernel does not know. USO came with Linux 6.2; all others are older than any kernel that weft supports, but
// a kernel may be built without them.
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

// negotiate sets the offloads that the kernel may leave undone in the frames that this process reads, and returns those
// that the kernel supports. It accepts the same offloads in written frames. The setting is that of the device,
// whichever of its descriptors file is.
func negotiate(file *poll.File) (virtio.Features, error) {
	for _, o := range offloads {
		var refused error
		if err := file.Control(func(fd uintptr) { refused = unix.IoctlSetInt(int(fd), unix.TUNSETOFFLOAD, o.flags) }); err != nil {
			return 0, err
		}
		switch {
		case refused == nil:
			return o.features, nil
		case !errors.Is(refused, unix.EINVAL):
			return 0, fmt.Errorf("TUNSETOFFLOAD: %w", refused)
		}
	}
	return 0, nil // a kernel that completes every frame itself
}

// limitWrites bounds the written bytes of a queue that no pod has received yet. Without it, the kernel accepts every
// write, and a host under overload fills its memory with frames.
func limitWrites(file *poll.File, size int) error {
	var refused error
	err := file.Control(func(fd uintptr) { refused = unix.IoctlSetPointerInt(int(fd), unix.TUNSETSNDBUF, size) })
	if err = errors.Join(err, refused); err != nil {
		return fmt.Errorf("TUNSETSNDBUF: %w", err)
	}
	return nil
}
