package cni

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"weft/internal/ether"
)

// config is the network configuration on the plugin's standard input. Keys that are not here are ignored, as the
// specification wants.
type config struct {
	types.PluginConf

	// Socket is the daemon's; empty: the default.
	Socket string `json:"socket"`
	// Policy is the socket of weft-kube, which enforces network policies; empty: nobody does.
	Policy string `json:"policy"`
	// MTU of the interface; 0: the overlay's.
	MTU int `json:"mtu"`
	// Hairpin lets a container reach itself through a service address; default: yes.
	Hairpin *bool `json:"hairpin"`

	// RuntimeConfig has what the runtime fills in for the capabilities "ips" and "mac".
	RuntimeConfig wishes `json:"runtimeConfig"`
	// Args has the same from orchestrators that write the configuration (CONVENTIONS.md).
	Args struct {
		CNI wishes `json:"cni"`
	} `json:"args"`
}

// wishes are addresses that the interface is to have.
type wishes struct {
	IPs []string `json:"ips"`
	MAC string   `json:"mac"`
}

func parseConfig(stdin []byte) (*config, error) {
	c := &config{}
	if err := json.Unmarshal(stdin, c); err != nil {
		return nil, failure(types.ErrDecodingFailure, fmt.Errorf("network configuration: %w", err))
	}
	if c.MTU < 0 {
		return nil, failure(types.ErrInvalidNetworkConfig, fmt.Errorf("mtu: %d is negative", c.MTU))
	}
	return c, nil
}

// hairpin returns whether the bridge sends frames back where they came from.
func (c *config) hairpin() bool { return c.Hairpin == nil || *c.Hairpin }

// wish is a value that somebody asked for, with where and how to complain about it.
type wish struct {
	value string
	key   string
	code  uint
}

func (w wish) refuse(err error) error { return failure(w.code, fmt.Errorf("%s: %w", w.key, err)) }

// choose returns the wishes of the first of the three places that has any: runtimeConfig, args.cni, CNI_ARGS.
func (c *config) choose(cniArgs, key, envKey string, of func(wishes) []string) ([]wish, error) {
	for _, place := range []struct {
		name   string
		wishes wishes
	}{{"runtimeConfig.", c.RuntimeConfig}, {"args.cni.", c.Args.CNI}} {
		if values := of(place.wishes); len(values) > 0 {
			return wishesOf(values, place.name+key, types.ErrInvalidNetworkConfig), nil
		}
	}
	value, err := lookupArg(cniArgs, envKey)
	if err != nil || value == "" {
		return nil, err
	}
	return wishesOf(strings.Split(value, ","), "CNI_ARGS "+envKey, types.ErrInvalidEnvironmentVariables), nil
}

func wishesOf(values []string, key string, code uint) []wish {
	out := make([]wish, len(values))
	for i, v := range values {
		out[i] = wish{value: strings.TrimSpace(v), key: key, code: code}
	}
	return out
}

// wantedIPs returns the addresses that the interface is to have, "IP" or "IP/LEN" each; none: any.
func (c *config) wantedIPs(cniArgs string) ([]string, error) {
	wanted, err := c.choose(cniArgs, "ips", "IP", func(w wishes) []string { return w.IPs })
	if err != nil {
		return nil, err
	}
	var ips []string
	for _, w := range wanted {
		if _, err := netip.ParseAddr(w.value); err != nil {
			if _, err := netip.ParsePrefix(w.value); err != nil {
				return nil, w.refuse(fmt.Errorf("%q is not an IP address", w.value))
			}
		}
		ips = append(ips, w.value)
	}
	return ips, nil
}

// wantedMAC returns the MAC that the interface is to have, zero where nobody asks for one.
func (c *config) wantedMAC(cniArgs string) (ether.Addr, error) {
	wanted, err := c.choose(cniArgs, "mac", "MAC", func(w wishes) []string {
		if w.MAC == "" {
			return nil
		}
		return []string{w.MAC}
	})
	if err != nil || len(wanted) == 0 {
		return ether.Addr{}, err
	}
	mac, err := ether.ParseAddr(wanted[0].value)
	if err != nil {
		return ether.Addr{}, wanted[0].refuse(err)
	}
	if mac.IsZero() || mac.IsMulticast() {
		return ether.Addr{}, wanted[0].refuse(fmt.Errorf("%s is no address for an interface", mac))
	}
	return mac, nil
}

// lookupArg returns the value of a key in CNI_ARGS, "K=V;K=V", empty if it is not there. Other keys are for others.
func lookupArg(cniArgs, key string) (string, error) {
	found := ""
	for pair := range strings.SplitSeq(cniArgs, ";") {
		k, v, ok := strings.Cut(pair, "=")
		if !ok && strings.TrimSpace(pair) != "" {
			return "", failure(types.ErrInvalidEnvironmentVariables, fmt.Errorf("CNI_ARGS: %q is not KEY=VALUE", pair))
		}
		if k == key {
			found = v
		}
	}
	return found, nil
}
