package carriertest_test

import (
	"net/netip"
	"testing"

	"weft/internal/peer"
	"weft/router/carrier"
	"weft/router/carrier/carriertest"
)

// memory is a network of fakes.
type memory struct{ *carriertest.Underlay }

func (m memory) Open(_ *testing.T, node int) carrier.Carrier { return m.Underlay.Open(m.Peer(node).ID) }

func (memory) Peer(node int) carrier.Peer {
	return carrier.Peer{ID: peer.ID{byte(node + 1)}, Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(node + 1)})}
}

func (memory) Keeps() bool { return true }

func (m memory) carrier(node int) *carriertest.Fake               { return m.Carrier(m.Peer(node).ID) }
func (m memory) Broadcast(_ *testing.T, node int, content string) { m.carrier(node).Broadcast(content) }
func (m memory) Next(_ *testing.T, node int) string               { return <-m.carrier(node).Frames() }
func (m memory) Break(_ *testing.T, on bool)                      { m.Underlay.Break(on) }
func (m memory) Disturb(*testing.T, int)                          {}
func (m memory) Delete(_ *testing.T, node int) {
	m.carrier(node).Set(func(s *carriertest.State) { s.Gone = true })
}

func TestFake(t *testing.T) {
	carriertest.Run(t, func(*testing.T) carriertest.Network { return memory{carriertest.NewUnderlay()} })
}
