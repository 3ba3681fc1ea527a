package node

import (
	"net/netip"
	"testing"

	"weft/internal/health"
	"weft/internal/health/healthtest"
	"weft/internal/hostnet"
)

// TestMTUFindings: an MTU that was set is a condition while the underlay does not take it.
func TestMTUFindings(t *testing.T) {
	s := &hostnet.Step{Addr: netip.MustParseAddr("192.0.2.1"), MTU: 1500}
	healthtest.Want(t, "not set", mtuFindings(0, s, false), "")
	healthtest.Want(t, "fits", mtuFindings(1438, s, false), "")
	healthtest.Want(t, "sealed", mtuFindings(1438, s, true), health.MTUTooLarge, "--mtu 1438", "leaves 1422")
	healthtest.Want(t, "too large", mtuFindings(9000, s, false), health.MTUTooLarge, "--mtu 9000", "MTU of 1500 leaves 1438",
		"--mtu 1438 or less")
	s.MTU = 9100
	healthtest.Want(t, "raised", mtuFindings(9000, s, false), "")
}
