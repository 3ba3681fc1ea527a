package driver

import (
	"fmt"
	"strings"
)

// Config configures the drivers.
type Config struct {
	// Bin is the folder with the weft programs.
	Bin string
	// WeftArgs are additional arguments of every "weft up", after the bench's own.
	WeftArgs []string
}

// Base is the name of the driver to which ratios are computed.
const Base = "vxlan"

// All returns every driver, in the order of the report.
func All(c Config) []Driver {
	return []Driver{
		raw{},
		vxlan{},
		&weft{Config: c, name: "weft", summary: "weft, plain, in userspace", args: []string{"--datapath", "userspace"}},
		&weft{Config: c, name: "weft-nooffload", summary: "weft, plain, in userspace, without segmentation and checksum offloads",
			args: []string{"--datapath", "userspace", "--offload", "off"}},
		&weft{Config: c, name: "weft-kernel", summary: "weft, plain, on its kernel path", args: []string{"--datapath", "kernel"}, path: "kernel"},
		&weft{Config: c, name: "weft-guard-pods", summary: "weft, plain, in userspace, with pods bound to their addresses",
			args: []string{"--datapath", "userspace", "--guard", "pods"}},
		&weft{Config: c, name: "weft-guard-off", summary: "weft, plain, in userspace, without a guard",
			args: []string{"--datapath", "userspace", "--guard", "off"}},
		&weft{Config: c, name: "weft-kernel-guard-pods", summary: "weft, plain, on its kernel path, with pods bound to their addresses",
			args: []string{"--datapath", "kernel", "--guard", "pods"}, path: "kernel"},
		&weft{Config: c, name: "weft-kernel-guard-off", summary: "weft, plain, on its kernel path, without a guard",
			args: []string{"--datapath", "kernel", "--guard", "off"}, path: "kernel"},
		&weft{Config: c, name: "weft-poll", summary: "weft, plain, in userspace, with busy polling",
			args: []string{"--datapath", "userspace", "--busy-poll", "auto"}},
		&weft{Config: c, name: "weft-aes", summary: "weft, encrypted with AES-256-GCM",
			args: []string{"--datapath", "userspace"}, cipher: "aes-256-gcm"},
		&weft{Config: c, name: "weft-aes-standard", summary: "weft, encrypted with AES-256-GCM of Go's standard library",
			args: []string{"--datapath", "userspace", "--aes", "standard"}, cipher: "aes-256-gcm"},
		&weft{Config: c, name: "weft-chacha", summary: "weft, encrypted with ChaCha20-Poly1305",
			args: []string{"--datapath", "userspace"}, cipher: "chacha20-poly1305"},
		&weft{Config: c, name: "weft-wireguard", summary: "weft, encrypted, with wireguard-go in place of the kernel's WireGuard",
			cipher: "chacha20-poly1305", path: "kernel", tunnel: &wireguard{}},
		&weft{Config: c, name: "weft-direct", summary: "weft, plain, with direct routing",
			args: []string{"--datapath", "kernel", "--direct-routing", "auto"}, path: "kernel", carrier: "direct"},
		routed{},
		&wireguard{},
		&wireguardVXLAN{},
		&nebula{},
		&tinc{},
		&openvpn{},
	}
}

// Select returns the drivers with the given names in the order of All, or all drivers if names is empty.
func Select(c Config, names []string) ([]Driver, error) {
	all := All(c)
	if len(names) == 0 {
		return all, nil
	}
	wanted := map[string]bool{}
	for _, n := range names {
		wanted[n] = true
	}
	var chosen []Driver
	var known []string
	for _, d := range all {
		known = append(known, d.Name())
		if wanted[d.Name()] {
			chosen = append(chosen, d)
			delete(wanted, d.Name())
		}
	}
	for n := range wanted {
		return nil, fmt.Errorf("driver: %q is unknown: use %s", n, strings.Join(known, ", "))
	}
	return chosen, nil
}
