// Package target parses the addresses that an operator gives for other nodes: PEER arguments and "weft connect".
package target

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
)

// ErrTarget is wrapped by Parse's errors.
var ErrTarget = errors.New("not a peer address")

// Error is the error of Parse. It wraps ErrTarget.
type Error struct {
	Text   string // that was parsed
	Reason string // why it is not a target, such as "is a URL"
	Fix    string // how to write it, a full sentence
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("%q %s", e.Text, e.Reason) }

// Unwrap returns ErrTarget.
func (e *Error) Unwrap() error { return ErrTarget }

// Target is the gossip address of a node: a host name or an IP address, and a port.
type Target struct {
	Host string // without brackets
	Port uint16
}

// Parse reads "host", "host:port", an IPv4 address, "[IPv6]" or "[IPv6]:port". Without a port it uses defaultPort. It resolves
// nothing. Errors are *Error.
func Parse(s string, defaultPort uint16) (Target, error) {
	if u, err := url.Parse(s); err == nil && u.Scheme != "" && u.Host != "" {
		return Target{}, &Error{s, "is a URL, and a peer is a host", "Write " + u.Host + "."}
	}
	if a, err := netip.ParseAddr(s); err == nil && a.Is6() {
		return Target{}, &Error{s, "is an IPv6 address without brackets", bracketsFor(s)}
	}
	host, portText := s, ""
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		host = s[1 : len(s)-1]
	} else if h, p, err := net.SplitHostPort(s); err == nil {
		host, portText = h, p
	}
	if !validHost(host) {
		return Target{}, &Error{s, "is not a host name or address", "A peer is HOST or HOST:PORT, with an IPv6 address in brackets."}
	}
	t := Target{Host: host, Port: defaultPort}
	if portText != "" {
		port, err := strconv.ParseUint(portText, 10, 16)
		if err != nil || port == 0 {
			return Target{}, &Error{
				s, fmt.Sprintf("has the port %q, which is not a number from 1 to 65535", portText),
				fmt.Sprintf("Write the gossip port of that node, or %s alone for %d.", host, defaultPort),
			}
		}
		t.Port = uint16(port)
	}
	return t, nil
}

// bracketsFor returns how to write an IPv6 address, which may have a port at its end.
func bracketsFor(s string) string {
	fix := "Write \"[" + s + "]\""
	i := strings.LastIndexByte(s, ':')
	if _, err := strconv.ParseUint(s[i+1:], 10, 16); err == nil && len(s[i+1:]) == 4 {
		if _, err := netip.ParseAddr(s[:i]); err == nil {
			fix += ", or \"[" + s[:i] + "]" + s[i:] + "\" if " + s[i+1:] + " is the port"
		}
	}
	return fix + "."
}

// validHost reports whether host can be a name or an address. Only an IPv6 address contains colons.
func validHost(host string) bool {
	if host == "" || strings.ContainsAny(host, "/[], \t\n") || strings.HasPrefix(host, "-") {
		return false
	}
	_, err := netip.ParseAddr(host)
	return err == nil || !strings.Contains(host, ":")
}

// String returns host:port, with brackets around an IPv6 address.
func (t Target) String() string { return net.JoinHostPort(t.Host, strconv.Itoa(int(t.Port))) }

// NameError says that the name of a target has no address.
type NameError struct{ text string }

// Error implements error.
func (e *NameError) Error() string { return e.text }

// LookupError returns an error of net's resolver as a *NameError, without what a person cannot use of it, such as the name server.
func LookupError(err error) error {
	if e, ok := errors.AsType[*net.DNSError](err); ok && e.IsNotFound {
		return &NameError{fmt.Sprintf("no address has the name %q", e.Name)}
	} else if ok {
		return &NameError{fmt.Sprintf("the name %q cannot be resolved: %s", e.Name, e.Err)}
	}
	return err
}

// DialError returns the reason of an error about a connection to an address of t. It has the address only if t is a name.
func (t Target) DialError(addr netip.Addr, err error) error {
	errno, ok := errors.AsType[syscall.Errno](err)
	if !ok {
		return err
	}
	if _, nameless := netip.ParseAddr(t.Host); nameless == nil {
		return errno
	}
	return fmt.Errorf("%s: %w", addr, errno)
}
