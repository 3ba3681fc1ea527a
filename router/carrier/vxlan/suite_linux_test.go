package vxlan_test

import (
	"testing"

	"weft/internal/nettest/labtest"
	"weft/router/carrier"
	"weft/router/carrier/carriertest"
	"weft/router/carrier/vxlan"
)

// TestCarrier: a Device passes the tests of carriers.
func TestCarrier(t *testing.T) {
	for name, v6 := range map[string]bool{"IPv4": false, "IPv6": true} {
		t.Run(name, func(t *testing.T) {
			carriertest.Run(t, func(t *testing.T) carriertest.Network {
				return carriertest.Hosts(t, carriertest.Kind{
					Open: func(t *testing.T, h *carriertest.Host) (carrier.Carrier, error) {
						return vxlan.Open(t.Context(), configOf(h))
					},
					Port: "weftvx", Link: "weftvx", UDP: port,
					Disturb: func(t *testing.T, h *carriertest.Host) {
						labtest.Run(t, h.Space, "nft", "flush", "ruleset")
						labtest.Run(t, h.Space, "ip", "link", "set", "weftvx", "down") // forgets its entries
						labtest.Run(t, h.Space, "ip", "link", "set", "weftvx", "up")
					},
				}, v6)
			})
		})
	}
}
