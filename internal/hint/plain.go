package hint

import (
	"slices"
	"strings"
)

// packages are the names of packages with which errors begin, as in "mesh: not running". They help in a log, and mean nothing to an
// operator. internal/archtest checks that the list is complete.
var packages = []string{
	"addressbook", "admission", "api", "apiserver", "bench", "bridge", "bridgenf", "cadir", "carrier", "containers", "cpulatency", "csr",
	"daemon", "datapath", "deletions", "demo", "direct", "dns", "docker", "dockerapi", "dockerfilter", "doctor", "driver", "epoch", "ether",
	"exposure", "filelock", "filter", "firewall", "fragment", "framewatch", "gate", "guard", "hairpin", "harness", "hostfilter", "hostnet",
	"hostports", "hostroutes", "hoststate", "hostwatch", "identity", "inward", "ipam", "keyring", "kube", "kubernetes", "lab", "leases",
	"live", "load", "masq", "mesh", "meter", "netspace", "nflog", "nftsum", "nftwatch", "node", "nodefilter", "nodekey", "pairs", "paxos",
	"pcapng", "peer", "podlink", "podprobe", "policy", "poll", "probe", "removal", "report", "ring", "router", "sample", "scale", "seal",
	"secret", "session", "settings", "sieve", "signer", "space", "statuspage", "store", "tap", "teardown", "toobig", "underlay", "unixsocket",
	"virtio", "vxlan", "wire", "wireguard",
}

// Plain returns the text of an error for people: without the names of packages in its chain, such as "mesh: " in
// "target a: mesh: no route". It is for text that leaves the program; errors and log lines keep their names.
func Plain(text string) string {
	if !strings.Contains(text, ": ") {
		return text
	}
	lines := strings.Split(text, "\n") // of joined errors
	for i, line := range lines {
		parts := strings.Split(line, ": ")
		last := len(parts) - 1
		kept := slices.DeleteFunc(parts[:last:last], func(part string) bool { return slices.Contains(packages, part) })
		lines[i] = strings.Join(append(kept, parts[last]), ": ")
	}
	return strings.Join(lines, "\n")
}
