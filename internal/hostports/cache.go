package hostports

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// CacheDir is the folder in which libcni keeps the results of containers, for all runtimes of a host.
const CacheDir = "/var/lib/cni/results"

// cached is a file of libcni's cache (libcni/api.go, cachedInfo).
type cached struct {
	Kind           string
	ContainerID    string
	Config         []byte // the configuration of the network, in base64
	Ifname         string `json:"ifName"`
	NetworkName    string
	CNIArgs        [][2]string `json:"cniArgs"`
	CapabilityArgs struct {
		PortMappings []struct {
			HostPort, ContainerPort int
			Protocol, HostIP        string
		}
	}
	Result struct {
		IPs []struct{ Address string }
	}
}

// cacheKind is the value of Kind.
const cacheKind = "cniCacheV1"

// ReadCache returns the ports that the portmap plugin has published for containers, as the cache in dir describes them. Files that
// it cannot parse are left out. A folder that does not exist is an empty one.
func ReadCache(dir string) ([]Port, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("hostports: read the cache of CNI: %w", err)
	}
	var ports []Port
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			continue // the container was removed
		}
		ports = append(ports, parse(text)...)
	}
	return ports, nil
}

// parse returns the ports of one file.
func parse(text []byte) (ports []Port) {
	var c cached
	if json.Unmarshal(text, &c) != nil || c.Kind != cacheKind || !mapsPorts(c.Config) {
		return nil
	}
	for _, m := range c.CapabilityArgs.PortMappings {
		host, _ := netip.ParseAddr(m.HostIP)
		if host.IsUnspecified() {
			host = netip.Addr{}
		}
		for _, ip := range c.Result.IPs {
			target, err := netip.ParsePrefix(ip.Address)
			if err != nil || !isPort(m.HostPort) || !isPort(m.ContainerPort) || host.IsValid() && host.Is4() != target.Addr().Is4() {
				continue
			}
			ports = append(ports, Port{
				Network: c.NetworkName, ContainerID: c.ContainerID, Ifname: c.Ifname, Name: c.name(),
				HostAddr: host, HostPort: uint16(m.HostPort), Protocol: protocol(m.Protocol),
				Target: netip.AddrPortFrom(target.Addr(), uint16(m.ContainerPort)),
			})
		}
	}
	return ports
}

func isPort(n int) bool { return n > 0 && n < 1<<16 }

// protocol returns the name of a protocol in lower case; the plugin's default is TCP.
func protocol(name string) string {
	if name == "" {
		return "tcp"
	}
	return strings.ToLower(name)
}

// mapsPorts reports whether a network has a portmap plugin: the reference plugin, or weft's copy of it.
func mapsPorts(config []byte) bool {
	var list struct{ Plugins []struct{ Type string } }
	if json.Unmarshal(config, &list) != nil {
		return false
	}
	for _, p := range list.Plugins {
		if p.Type == "portmap" || p.Type == "weft-portmap" {
			return true
		}
	}
	return false
}

// name returns the name of the pod, or of the container where the runtime gives none.
func (c *cached) name() string {
	args := map[string]string{}
	for _, a := range c.CNIArgs {
		args[a[0]] = a[1]
	}
	space, name := args["K8S_POD_NAMESPACE"], args["K8S_POD_NAME"]
	switch {
	case name == "":
		const short = 12
		return "container " + c.ContainerID[:min(len(c.ContainerID), short)]
	case space == "" || space == name: // podman has no namespaces
		return name
	}
	return space + "/" + name
}
