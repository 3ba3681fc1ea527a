package nettest

import (
	"strconv"
	"strings"
)

// Pin restricts processes that Command, Run and Host.Start start later to the given cores, including their threads and
// children. It also applies to pods that are added to the host later. It does not apply to Do. No cores remove the
// restriction. Pin must not be called concurrently with other methods.
func (s *Space) Pin(cores []int) {
	list := make([]string, len(cores))
	for i, c := range cores {
		list[i] = strconv.Itoa(c)
	}
	s.cores = strings.Join(list, ",")
}

// pinned returns a command that runs argv on the cores of Pin. taskset(1) sets the affinity and replaces itself by the
// program, so the PID is that of the program.
func (s *Space) pinned(argv []string) []string {
	if s.cores == "" {
		return argv
	}
	return append([]string{"taskset", "--cpu-list", s.cores}, argv...)
}
