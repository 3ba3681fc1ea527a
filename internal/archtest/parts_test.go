package archtest

import (
	"slices"
	"strings"
	"testing"
)

// parts are the parts of a node, and the packages of weft that each may import. A part sees values, the host and, where that is
// its job, an engine; it never sees another part. internal/node alone imports them all.
var parts = map[string][]string{
	"internal/health": {},
	"internal/doctor": {
		"internal/api", "internal/hint", "internal/hostfilter", "internal/hostnet", "internal/hostroutes", "internal/hoststate",
		"internal/hoststate/live", "internal/masq", "internal/podlink", "internal/settings",
		"internal/statedir", "ipam/store", "router/carrier/vxlan", "router/carrier/wireguard", "router/wire", "tap/bridge",
	},
	"internal/datapath": {
		"internal/api", "internal/capture/filter", "internal/capture/pcapng", "internal/cpulatency", "internal/dockerfilter",
		"internal/ether", "internal/health",
		"internal/exposure", "internal/hint", "internal/guard", "internal/hairpin", "internal/hostnet", "internal/hoststate", "internal/inward",
		"internal/hoststate/live", "internal/hostwatch", "internal/masq", "internal/metricdef", "internal/netdump", "internal/nftsum",
		"internal/nodefilter", "internal/peer", "internal/plural",
		"internal/podlink",
		"internal/repairs", "internal/settings",
		"internal/pairs", "internal/reach", "internal/signal", "internal/tunnels", "mesh/topology",
		"router", "router/capture", "router/carrier", "router/carrier/direct", "router/carrier/framewatch", "router/carrier/vxlan",
		"router/carrier/wireguard", "router/drop",
		"router/flows", "router/session", "router/underlay",
		"tap", "tap/bridge", "tap/virtio",
	},
	"internal/hostcheck": {
		"internal/health", "internal/hostfilter", "internal/hostnet", "internal/hostports", "internal/hostroutes", "internal/hostwatch",
		"internal/plural", "internal/podprobe", "internal/settings",
	},
	"internal/leases": {
		"internal/api", "internal/dnsname", "internal/ether", "internal/exposure", "internal/health", "internal/hint", "internal/hostnet",
		"internal/leases/deletions", "internal/guard", "internal/hostwatch", "internal/leases/holder",
		"internal/peer", "internal/podlink", "internal/signal", "ipam",
	},
	"internal/peermetrics": {"internal/api", "internal/metricdef", "internal/peer", "router", "router/carrier"},
	"internal/apiserver":   {"internal/api", "internal/hint", "internal/hostnet", "internal/statuspage", "internal/unixsocket"},
}

// TestParts: a part of the node imports nothing that the table does not have, and the table has nothing that is not needed.
func TestParts(t *testing.T) {
	imports := map[string][]string{}
	for _, p := range loadPackages(t) {
		imports[strings.TrimPrefix(p.ImportPath, "weft/")] = p.Imports
	}
	for part, allowed := range parts {
		var used []string
		for _, imported := range imports[part] {
			if name, ours := strings.CutPrefix(imported, "weft/"); ours {
				used = append(used, name)
				if !slices.Contains(allowed, name) {
					t.Errorf("%s imports %s: parts exchange values and small interfaces (docs/ARCHITECTURE.md)", part, name)
				}
			}
		}
		for _, name := range allowed {
			if !slices.Contains(used, name) {
				t.Errorf("%s does not import %s: remove it from the table", part, name)
			}
		}
	}
	for from, list := range imports {
		for _, imported := range list {
			name := strings.TrimPrefix(imported, "weft/")
			if _, part := parts[name]; part && from != "internal/node" && !mayImportPart(from, name) {
				t.Errorf("%s imports %s: only internal/node sees the parts of a node", from, name)
			}
		}
	}
}

// mayImportPart reports whether a package other than internal/node may import a part: everything may report conditions, and
// "weft doctor" runs the checks without a node.
func mayImportPart(from, part string) bool {
	return part == "internal/health" || part == "internal/doctor" && from == "cmd/weft"
}
