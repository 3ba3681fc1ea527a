package lab

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
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
// processes that are started on the ends and their pods afterwards. The router of a Chain gets no share: it runs no
// process. The kernel's work for a packet on the underlay remains on the core of its sender, as for every veth.
func (l *Lab) Pin(cores []int) error {
	parts, err := shares(cores, len(l.Ends))
	if err != nil {
		return err
	}
	for i, h := range l.Ends {
		h.Pin(parts[i])
	}
	return nil
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
