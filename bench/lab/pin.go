package lab

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"weft/internal/nettest"
)

// ErrFewCores is wrapped by the error of Pin if there are fewer cores than ends.
var ErrFewCores = errors.New("each host needs a core of its own")

// Cores returns the numbers of the cores that this process may use, in ascending order.
func Cores() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("lab: reading the affinity: %w", err)
	}
	var cores []int
	for c := 0; len(cores) < set.Count(); c++ {
		if set.IsSet(c) {
			cores = append(cores, c)
		}
	}
	return cores, nil
}

// Pin gives each end an equal share of the cores, in order, as separate machines have their own cores. It applies to all
// processes that are started on the ends and their pods afterwards, and to the kernel's work for packets that an end
// receives. The router of a Chain gets no share. The switch, and the coalescing of received packets with Plain, remain on
// the core of the sender.
func (l *Lab) Pin(ctx context.Context, cores []int) error {
	parts, err := shares(cores, len(l.Ends))
	if err != nil {
		return err
	}
	for i, h := range l.Ends {
		h.Pin(parts[i])
		if err := steer(ctx, h, parts[i]); err != nil {
			return err
		}
	}
	return nil
}

// steer makes the kernel process the packets that a host receives on the given cores (receive packet steering,
// Documentation/networking/scaling.rst). Otherwise a veth does it on the core of the sender.
func steer(ctx context.Context, h *nettest.Host, cores []int) error {
	// Unlike nsenter, ip mounts the sysfs of the namespace.
	const script = "echo $1 >/sys/class/net/" + underlayIf + "/queues/rx-0/rps_cpus"
	out, err := exec.CommandContext(ctx, "ip", "netns", "exec", h.Name(), "sh", "-c", script, "sh", mask(cores)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("lab: steering packets to the cores of %s: %w: %s", h.Label(), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// mask returns a set of cores as the kernel reads it: words of 32 bits in hexadecimal, the highest first, with commas.
func mask(cores []int) string {
	words := make([]uint32, slices.Max(cores)/32+1)
	for _, c := range cores {
		words[len(words)-1-c/32] |= 1 << (c % 32)
	}
	texts := make([]string, len(words))
	for i, w := range words {
		texts[i] = fmt.Sprintf("%08x", w)
	}
	return strings.Join(texts, ",")
}

// shares divides cores into n shares that differ by at most one core. Earlier shares are not larger than later ones.
func shares(cores []int, n int) ([][]int, error) {
	if len(cores) < n {
		return nil, fmt.Errorf("lab: %d hosts, %d cores: %w", n, len(cores), ErrFewCores)
	}
	parts := make([][]int, n)
	for i := range parts {
		parts[i] = cores[i*len(cores)/n : (i+1)*len(cores)/n]
	}
	return parts, nil
}
