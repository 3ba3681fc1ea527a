// Package target parses the addresses that an operator gives for other nodes: PEER arguments and "weft connect".
package target

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// ErrTarget is wrapped by Parse's errors.
var ErrTarget = errors.New("not a peer address")

// Target is the gossip address of a node: a host name or an IP address, and a port.
type Target struct {
	Host string // without brackets
	Port uint16
}

// Parse reads "host", "host:port", an IP address, or "[IPv6]:port". Without a port it uses defaultPort. It resolves nothing.
func Parse(s string, defaultPort uint16) (Target, error) {
	host, portText := strings.Trim(s, "[]"), ""
	if h, p, err := net.SplitHostPort(s); err == nil {
		host, portText = h, p
	}
	if !validHost(host) {
		return Target{}, fmt.Errorf("%w: %q: want HOST or HOST:PORT, an IPv6 address with a port in brackets", ErrTarget, s)
	}
	t := Target{Host: host, Port: defaultPort}
	if portText != "" {
		port, err := strconv.ParseUint(portText, 10, 16)
		if err != nil || port == 0 {
			return Target{}, fmt.Errorf("%w: %q: the port is not a number from 1 to 65535", ErrTarget, s)
		}
		t.Port = uint16(port)
	}
	return t, nil
}

// validHost reports whether host can be a name or an address. Only an IPv6 address contains colons.
func validHost(host string) bool {
	if host == "" || strings.ContainsAny(host, "/ \t\n") || strings.HasPrefix(host, "-") {
		return false
	}
	_, err := netip.ParseAddr(host)
	return err == nil || !strings.Contains(host, ":")
}

// String returns host:port, with brackets around an IPv6 address.
func (t Target) String() string { return net.JoinHostPort(t.Host, strconv.Itoa(int(t.Port))) }
