package cni

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"weft/internal/ether"
)

// config is the network configuration on the plugin's standard input. Other keys are ignored, as the specification requires.
type config struct {
	types.PluginConf

	// Socket is the path of the daemon's socket; empty: the default.
	Socket string `json:"socket"`
	// Policy is the path of the socket of weft-kube, which enforces network policies; empty: they are not enforced.
	Policy string `json:"policy"`
	// MTU of the interface, in bytes; 0: that of the overlay.
	MTU int `json:"mtu"`
	// Hairpin lets a container reach itself through a service address; default: true.
	Hairpin *bool `json:"hairpin"`
	// Guard is what a container may send: pods, host or off; missing: as the daemon's --guard says. Allow are further addresses that a
	// container may use which is bound to its addresses.
	Guard string   `json:"guard"`
	Allow []string `json:"allow"`
	// Names gives each container a name in the overlay, and the name server of its node; default: false.
	Names bool `json:"names"`

	// RuntimeConfig has the values of the runtime for the capabilities "ips" and "mac".
	RuntimeConfig requested `json:"runtimeConfig"`
	// Args has the same values from orchestrators that write the configuration (CONVENTIONS.md of the CNI specification).
	Args struct {
		CNI requested `json:"cni"`
	} `json:"args"`
}

// requested are addresses that the interface is to have.
type requested struct {
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

// hairpin reports whether the bridge may send frames back to the port that they came from.
func (c *config) hairpin() bool { return c.Hairpin == nil || *c.Hairpin }

// request is one requested value, with its place in the input and the code of errors about it.
type request struct {
	value string
	key   string
	code  uint
}

func (w request) refuse(err error) error { return failure(w.code, fmt.Errorf("%s: %w", w.key, err)) }

// choose returns the values of the first of three places that has any: runtimeConfig, args.cni, CNI_ARGS.
func (c *config) choose(cniArgs, key, envKey string, of func(requested) []string) ([]request, error) {
	for _, place := range []struct {
		name   string
		values requested
	}{{"runtimeConfig.", c.RuntimeConfig}, {"args.cni.", c.Args.CNI}} {
		if values := of(place.values); len(values) > 0 {
			return requestsOf(values, place.name+key, types.ErrInvalidNetworkConfig), nil
		}
	}
	value, err := lookupArg(cniArgs, envKey)
	if err != nil || value == "" {
		return nil, err
	}
	return requestsOf(strings.Split(value, ","), "CNI_ARGS "+envKey, types.ErrInvalidEnvironmentVariables), nil
}

func requestsOf(values []string, key string, code uint) []request {
	out := make([]request, len(values))
	for i, v := range values {
		out[i] = request{value: strings.TrimSpace(v), key: key, code: code}
	}
	return out
}

// wantedIPs returns the requested addresses, each "IP" or "IP/LEN"; none: the daemon chooses.
func (c *config) wantedIPs(cniArgs string) ([]string, error) {
	wanted, err := c.choose(cniArgs, "ips", "IP", func(w requested) []string { return w.IPs })
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

// wantedMAC returns the requested MAC, zero if none is requested.
func (c *config) wantedMAC(cniArgs string) (ether.Addr, error) {
	wanted, err := c.choose(cniArgs, "mac", "MAC", func(w requested) []string {
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
		return ether.Addr{}, wanted[0].refuse(fmt.Errorf("%s is not a unicast address", mac))
	}
	return mac, nil
}

// lookupArg returns the value of a key in CNI_ARGS ("K=V;K=V"), empty if the key is missing.
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
