package scale

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strings"
)

// profile writes a CPU profile until stop is called.
func (s *simulation) profile(phase string) (stop func() error, err error) {
	if s.o.Profiles == "" {
		return func() error { return nil }, nil
	}
	f, err := s.profileFile(strings.ReplaceAll(phase, " ", "-"))
	if err != nil {
		return nil, err
	}
	if s.outside.do(func() { err = pprof.StartCPUProfile(f) }); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() error {
		s.outside.do(pprof.StopCPUProfile)
		return f.Close()
	}, nil
}

// writeHeap writes a profile of the memory in use.
func (s *simulation) writeHeap() error {
	if s.o.Profiles == "" {
		return nil
	}
	f, err := s.profileFile("heap")
	if err != nil {
		return err
	}
	return errors.Join(pprof.WriteHeapProfile(f), f.Close())
}

func (s *simulation) profileFile(name string) (*os.File, error) {
	return os.Create(filepath.Join(s.o.Profiles, fmt.Sprintf("%d-%s.pprof", s.result.Nodes, name)))
}
