package dns

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
)

// note keeps why nothing listens at a, and logs it once.
func (s *Server) note(a netip.Addr, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.problems[a]
	if err == nil || !slices.Contains(s.wanted, a) {
		delete(s.problems, a)
		return
	}
	s.problems[a] = err
	if before == nil || before.Error() != err.Error() {
		s.cfg.Logger.Warn("names are not answered at an address", "addr", a, "err", err)
	}
}

// Problem returns what keeps the server from listening where it should, with all addresses in one error; nil where nothing
// does.
func (s *Server) Problem() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, a := range s.wanted {
		if err := s.problems[a]; err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Problems returns the same for people, a sentence with its mend for each address, in order.
func (s *Server) Problems() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var sentences []string
	for _, a := range s.wanted {
		if err := s.problems[a]; err != nil {
			sentences = append(sentences, fmt.Sprintf("names are not answered at %s: %v: %s",
				netip.AddrPortFrom(a, s.cfg.Port), rootOf(err), mendOf(err)))
		}
	}
	return sentences
}

// rootOf returns the error of the kernel that err is about, or err.
func rootOf(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// mendOf says what to do about an address that cannot be bound.
func mendOf(err error) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return "stop what listens there, or keep it from this address (\"ss -lnptu\" shows it)"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "give the host that address (\"ip addr\" shows those it has)"
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return "run as root, or with CAP_NET_BIND_SERVICE"
	}
	return "it is tried again every few seconds"
}
