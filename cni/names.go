package cni

import (
	"context"
	"errors"
	"time"

	"weft/internal/api"
	"weft/internal/dnsname"
)

// argHostname is the key of CNI_ARGS in which nerdctl passes the host name of a container; podman passes its name as argName.
const argHostname = "NERDCTL_CNI_DHCP_HOSTNAME"

// nameTimeout bounds how long a container waits for its name.
const nameTimeout = 5 * time.Second

// addName gives the addresses of the container a name, which ends with its leases, if the configuration says so. A container without a
// name runs: what prevents one is logged.
func (c *call) addName(ctx context.Context, p plan) {
	if !c.conf.Names {
		return
	}
	err := errors.New("its addresses are from another plugin")
	name := ""
	if !c.delegated() {
		name, err = c.name(p)
	}
	if err == nil && name != "" {
		ctx, cancel := context.WithTimeout(ctx, nameTimeout)
		defer cancel()
		err = c.daemon.AddName(ctx, api.NameRequest{Name: name, IPs: p.addresses(), Owner: c.holder.String()})
	}
	if err != nil {
		c.log().Warn("the container has no name in the overlay", "holder", c.holder, "name", name, "err", err)
	}
}

// name returns the name of the container, empty if the runtime has passed none.
func (c *call) name(p plan) (string, error) {
	if p.domain == "" {
		return "", errors.New("the daemon is of an older version than the plugin")
	}
	values := map[string]string{argName: "", argNamespace: "", argHostname: ""}
	for key := range values {
		value, err := lookupArg(c.args.Args, key)
		if err != nil {
			return "", err
		}
		values[key] = value
	}
	name, namespace := values[argName], values[argNamespace]
	switch {
	case name == "":
		name = values[argHostname]
	case namespace != "" && namespace != name: // podman passes the name of the container for both
		name += "." + namespace // two pods of Kubernetes may have one name
	}
	return dnsname.Of(name), nil
}

// setNames puts into the plan what the result says about names: the container asks the node, unless the configuration has other
// resolvers.
func (p *plan) setNames(join api.Join) {
	p.domain = join.DNSDomain
	if !join.DNS || !p.dns.IsEmpty() {
		return
	}
	for _, g := range p.gateways {
		if g.IsValid() {
			p.dns.Nameservers = append(p.dns.Nameservers, g.String())
		}
	}
	if len(p.dns.Nameservers) > 0 {
		p.dns.Search = []string{join.DNSDomain}
	}
}
