package underlay

import (
	"errors"
	"math/rand/v2"
)

// Candidates for entropy ports. Number i is i above the data port modulo entropyStep, which is a multiple of 1 to 10, 12, 14, 15 and 16:
// so the Steering of a receiver with that many sockets finds the number. Candidates lie in the default range of ephemeral
// ports, where no service listens (net.ipv4.ip_local_port_range).
const (
	entropyStep  = 5040
	firstEntropy = 32768
	lastEntropy  = 60999
)

// entropyBuffer is the receive buffer of an entropy port in bytes: a few hundred answers to probes.
const entropyBuffer = 64 << 10

// ListenEntropy opens n sockets, each on a port of its own, for datagrams of which only the answers come back. The configuration is that
// of the sockets on the data port cfg.Port. If it can, it chooses ports so that number i reaches socket i of a receiver (Steering). The
// errors are those of Listen.
func ListenEntropy(cfg Config, n int) (sockets []*UDP, err error) {
	data := int(cfg.Port)
	cfg.ReceiveBuffer, cfg.NoGRO = entropyBuffer, true
	for i := range n {
		u, err := listenAligned(cfg, data+i)
		if err != nil {
			for _, u := range sockets {
				err = errors.Join(err, u.Close())
			}
			return nil, err
		}
		sockets = append(sockets, u)
	}
	return sockets, nil
}

// listenAligned opens a socket on a free port with the same remainder as residue modulo entropyStep, or else on any free port. It begins
// with a random candidate, so that several nodes of a host, or a node and its successor, rarely want the same one.
func listenAligned(cfg Config, residue int) (*UDP, error) {
	first := firstEntropy + (residue-firstEntropy%entropyStep+entropyStep)%entropyStep
	candidates := (lastEntropy-first)/entropyStep + 1
	data := int(cfg.Port)
	for i, start := 0, rand.IntN(candidates); i < candidates; i++ {
		candidate := first + (start+i)%candidates*entropyStep
		if data-1 <= candidate && candidate <= data+1 {
			continue // the ports of gossip, data and the kernel path; the data port may be an ephemeral one
		}
		cfg.Port = uint16(candidate)
		u, err := Listen(cfg)
		if err == nil || !errors.Is(err, ErrPortInUse) {
			return u, err
		}
	}
	cfg.Port = 0
	return Listen(cfg)
}
