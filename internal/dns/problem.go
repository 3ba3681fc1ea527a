package dns

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
)

// recordProblem records why nothing listens at a, or with nil that something does, and logs each new error.
func (s *Server) recordProblem(a netip.Addr, err error) {
	s.mu.Lock()
	before := s.problems[a]
	isProblem := err != nil && slices.Contains(s.wanted, a)
	if isProblem {
		s.problems[a] = err
	} else {
		delete(s.problems, a)
	}
	s.mu.Unlock()
	if isProblem && (before == nil || before.Error() != err.Error()) {
		s.cfg.Logger.Warn("names are not answered at an address", "addr", a, "err", err)
	}
}

// Problem returns why the server does not listen at some of its addresses, all in one error; nil when it listens at
// each of them.
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

// Problems returns a sentence with a remedy for each address at which the server does not listen, in order.
func (s *Server) Problems() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var sentences []string
	for _, a := range s.wanted {
		if err := s.problems[a]; err != nil {
			sentences = append(sentences, fmt.Sprintf("names are not answered at %s: %v: %s",
				netip.AddrPortFrom(a, s.cfg.Port), rootCause(err), remedyFor(err)))
		}
	}
	return sentences
}

// rootCause returns the error of the kernel that err wraps, or err.
func rootCause(err error) error {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno
	}
	return err
}

// remedyFor returns what an operator can do about an address that cannot be bound.
func remedyFor(err error) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return "stop the program that listens there, or make it listen on other addresses only (\"ss -lnptu\" shows it)"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "assign that address to the host (\"ip addr\" shows its addresses)"
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return "run as root, or with CAP_NET_BIND_SERVICE"
	}
	return "weft retries every few seconds"
}
