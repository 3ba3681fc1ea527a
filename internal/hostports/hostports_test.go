package hostports

import (
	"encoding/base64"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"sigs.k8s.io/knftables"

	"weft/internal/hostfilter"
)

// file returns a file of libcni's cache.
func file(plugin, args, mappings, ips string) string {
	config := base64.StdEncoding.EncodeToString([]byte(`{"name": "weft", "plugins": [{"type": "weft"}, {"type": "` + plugin + `"}]}`))
	return `{"kind": "cniCacheV1", "containerId": "0123456789abcdef", "config": "` + config + `", "ifName": "eth0", "networkName": "weft",
		"cniArgs": [` + args + `], "capabilityArgs": {"portMappings": [` + mappings + `]}, "result": {"ips": [` + ips + `]}}`
}

const (
	kubernetes = `["IgnoreUnknown", "1"], ["K8S_POD_NAMESPACE", "default"], ["K8S_POD_NAME", "web"]`
	podman     = `["K8S_POD_NAMESPACE", "web"], ["K8S_POD_NAME", "web"]`
	ip4        = `{"address": "10.32.0.2/12", "gateway": "10.32.0.1"}`
	ip6        = `{"address": "fd32::2/64"}`
)

// port returns a port of the pod default/web.
func port(hostPort uint16, protocol, target string) Port {
	return Port{
		Network: "weft", ContainerID: "0123456789abcdef", Ifname: "eth0", Name: "default/web", HostPort: hostPort, Protocol: protocol,
		Target: netip.MustParseAddrPort(target),
	}
}

func TestParse(t *testing.T) {
	own := port(8080, "tcp", "10.32.0.2:80")
	own.HostAddr = netip.MustParseAddr("192.0.2.1")
	named4 := port(8080, "tcp", "10.32.0.2:80")
	named, unnamed := port(8080, "tcp", "10.32.0.2:80"), port(8080, "tcp", "10.32.0.2:80")
	named.Name, unnamed.Name = "web", "container 0123456789ab"
	const (
		plain = `{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}`
		dns   = `{"HostPort": 53, "ContainerPort": 53, "Protocol": "UDP", "HostIP": ""}`
		at    = `{"hostPort": 8080, "containerPort": 80, "hostIP": `
		both  = ip4 + "," + ip6
	)
	for name, tt := range map[string]struct {
		text string
		want []Port
	}{
		"cnitool, CRI-O":   {file("portmap", kubernetes, plain, ip4), []Port{port(8080, "tcp", "10.32.0.2:80")}},
		"containerd":       {file("portmap", kubernetes, dns, ip4), []Port{port(53, "udp", "10.32.0.2:53")}},
		"weft's copy":      {file("weft-portmap", kubernetes, plain, ip4), []Port{port(8080, "tcp", "10.32.0.2:80")}},
		"two families":     {file("portmap", kubernetes, plain, both), []Port{named4, port(8080, "tcp", "[fd32::2]:80")}},
		"an address":       {file("portmap", kubernetes, at+`"192.0.2.1"}`, both), []Port{own}},
		"any address":      {file("portmap", kubernetes, at+`"0.0.0.0"}`, ip4), []Port{port(8080, "tcp", "10.32.0.2:80")}},
		"podman":           {file("portmap", podman, plain, ip4), []Port{named}},
		"no name":          {file("portmap", "", plain, ip4), []Port{unnamed}},
		"no portmap":       {file("tuning", kubernetes, plain, ip4), nil},
		"no ports":         {file("portmap", kubernetes, "", ip4), nil},
		"a port too large": {file("portmap", kubernetes, `{"hostPort": 70000, "containerPort": 80}`, ip4), nil},
		"no JSON":          {"hello", nil},
		"another file":     {`{"kind": "other"}`, nil},
	} {
		got := parse([]byte(tt.text))
		if diff := cmp.Diff(tt.want, got, cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestReadCache(t *testing.T) {
	dir := t.TempDir()
	if ports, err := ReadCache(filepath.Join(dir, "none")); err != nil || ports != nil {
		t.Errorf("without a cache: %v, %v", ports, err)
	}
	for name, text := range map[string]string{
		"weft-a-eth0": file("portmap", kubernetes, `{"hostPort": 8080, "containerPort": 80}`, ip4), "broken": "{",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if ports, err := ReadCache(dir); err != nil || len(ports) != 1 {
		t.Errorf("%v, %v", ports, err)
	}
}

// TestMissing: a port is missing without a rule of another program for it.
func TestMissing(t *testing.T) {
	self := netip.MustParseAddr("192.0.2.7")
	ports := []Port{port(8080, "tcp", "10.32.0.2:80"), port(53, "udp", "[fd32::2]:53")}
	const rules = "table %T {\n chain p {\n type nat hook prerouting priority dstnat; policy accept;\n" +
		" fib daddr type local tcp dport 8080 dnat to 10.32.0.2:80\n }\n}\n"
	for table, want := range map[string]string{
		"ip nat": "53/udp of default/web", "ip weft-hostports": "53/udp of default/web, 8080/tcp of default/web",
	} {
		got := Names(Missing(hostfilter.ParseNFT(strings.ReplaceAll(rules, "%T", table)), ports, self))
		if strings.Join(got, ", ") != want {
			t.Errorf("%s: %v, want %s", table, got, want)
		}
	}
}

const golden = `add table ip weft-hostports { comment "weft: ports of containers that another program removed" ; }
add chain ip weft-hostports output { type nat hook output priority -95 ; }
add chain ip weft-hostports ports
add chain ip weft-hostports postrouting { type nat hook postrouting priority 95 ; }
add chain ip weft-hostports prerouting { type nat hook prerouting priority -95 ; }
add rule ip weft-hostports output fib daddr type local jump ports
add rule ip weft-hostports ports tcp dport 8080 dnat to 10.32.0.2:80
add rule ip weft-hostports ports ip daddr 192.0.2.1 udp dport 53 dnat to 10.32.0.2:53
add rule ip weft-hostports postrouting ip daddr 10.32.0.2 ip saddr { 10.32.0.2 , 127.0.0.0/8 } masquerade
add rule ip weft-hostports prerouting fib daddr type local jump ports
`

func TestTransaction(t *testing.T) {
	own := port(53, "udp", "10.32.0.2:53")
	own.HostAddr = netip.MustParseAddr("192.0.2.1")
	fake := knftables.NewFake(knftables.IPv4Family, Table)
	for range 2 {
		if err := fake.Run(t.Context(), families[0].transaction(fake, []Port{port(8080, "tcp", "10.32.0.2:80"), own})); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(golden, fake.Dump()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	if err := fake.Run(t.Context(), families[0].transaction(fake, nil)); err != nil || fake.Dump() != "" {
		t.Errorf("without ports: %v\n%s", err, fake.Dump())
	}
}
