// Package archtest holds the layering that docs/ARCHITECTURE.md describes: imports go strictly down.
package archtest

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// layers maps a package, or a folder with "/..." below it, to its layer. A package may import only lower layers.
var layers = []struct {
	pattern string
	layer   int
}{
	{"cmd/...", 5},
	{"deploy", 5},
	{"docs", 5},
	{"bench/...", 4},
	{"internal/node", 4},
	{"internal/apiserver", 4},
	{"internal/controlplane", 4},
	{"internal/datapath", 4},
	{"internal/doctor", 4},
	{"internal/e2e/kubernetes/outcome", 0},
	{"internal/e2e/kubernetes/page", 1},
	{"internal/e2e/...", 4},
	{"internal/archtest", 4},
	{"internal/leases/deletions", 2},
	{"internal/leases/holder", 2},
	{"internal/leases", 4},

	{"router", 3},
	{"mesh", 3},
	{"internal/dns", 3},
	{"ipam", 3},
	{"cni", 3},
	{"internal/containers", 3},
	{"internal/docker", 3},
	{"internal/kube", 3},
	{"internal/kube/signer", 3},
	{"internal/kube/removal", 3},
	{"internal/cadir", 3},
	{"internal/teardown", 3},
	{"internal/nettest/wireguardtest", 4},
	{"internal/nettest/dockertest", 4},
	{"internal/nettest/...", 3}, // for tests, the demo and the bench only

	{"tap", 2},
	{"tap/bridge", 2},
	{"tap/taptest", 2},
	{"router/underlay/...", 2},
	{"router/carrier/carriertest", 4}, // for tests only
	{"internal/tunnels", 3},
	{"internal/pairs", 3},
	{"internal/inward", 3},
	{"internal/reach", 3},
	{"router/carrier/...", 2},
	{"router/relay", 2},
	{"ipam/store/...", 2},
	{"internal/podlink/...", 2},
	{"internal/cpulatency", 2},
	{"internal/masq", 2},
	{"internal/exposure", 2},
	{"internal/hairpin", 2},
	{"internal/guard/...", 2},
	{"internal/nodefilter", 2},
	{"internal/filelock", 2},
	{"internal/privatefile", 2},
	{"internal/unixsocket", 2},
	{"internal/hostnet", 2},
	{"internal/hostwatch", 2},
	{"internal/hostfilter", 2},
	{"internal/hoststate/live", 2},
	{"internal/hostroutes", 2},
	{"internal/hostports", 2},
	{"internal/podprobe", 3},
	{"internal/repairs", 3},
	{"internal/health/healthtest", 1}, // for tests only
	{"internal/dockerapi", 2},
	{"internal/dockerfilter", 2},
	{"internal/hostcheck", 4},
	{"internal/peermetrics", 4},
	{"internal/settings", 2},
	{"internal/statuspage", 2},
	{"internal/traffic", 2},
	{"internal/kube/cluster", 2},
	{"internal/kube/firewall", 2},
	{"internal/nftwatch", 2},
	{"internal/kube/bridgenf", 2},
	{"internal/kube/csr", 2},
	{"internal/simnet", 2},

	{"router/drop", 0},
	{"router/elapsed", 0},
	{"router/...", 1},
	{"tap/fairqueue", 1},
	{"tap/virtio", 1},
	{"mesh/outqueue", 1},
	{"mesh/sieve", 1},
	{"mesh/topology", 1},
	{"mesh/seal", 1},
	{"mesh/freshness", 1},
	{"mesh/gate", 1},
	{"mesh/keyring", 1},
	{"mesh/memberlog", 2},
	{"mesh/fragment", 2},
	{"mesh/epoch", 1},
	{"mesh/admission", 2},
	{"mesh/nodekey", 2},
	{"mesh/addressbook", 2},
	{"mesh/mismatch", 1},
	{"mesh/metadata", 1},
	{"ipam/...", 1},
	{"internal/kube/policy/...", 1},
	{"internal/kube/domains", 1},
	{"internal/api", 1},
	{"internal/hoststate", 1},
	{"internal/capture/...", 1},
	{"internal/statedir", 1},
	{"internal/docgen", 1}, // for tests only
	{"internal/secret", 1},
	{"internal/identity", 1},
	{"internal/usage", 1},

	{"internal/bytesreader", 0},
	{"internal/dnsname", 0},
	{"internal/health", 0},
	{"internal/hint", 0},
	{"internal/suggest", 0},
	{"internal/target", 0},
	{"internal/peer", 0},
	{"internal/signal", 0},
	{"internal/ether", 0},
	{"internal/flowhash", 0},
	{"internal/metricdef", 0},
	{"internal/netdump", 0},
	{"internal/netspace", 0},
	{"internal/nflog", 0},
	{"internal/nftsum", 0},
	{"internal/packet", 0},
	{"internal/plural", 0},
	{"internal/poll", 0},
	{"internal/printable", 0},
	{"internal/ratelimit", 0},
	{"internal/replay", 0},
	{"internal/offheap", 0},
	{"internal/vaesgcm", 0},
}

// besideSeam reports whether an import within one layer is meant: a fake, a suite or a tool below the package that it
// belongs to, such as tap/taptest below tap.
func besideSeam(from, imported string) bool { return strings.HasPrefix(from, imported+"/") }

// acrossSeam are the imports within one layer of an implementation that lives elsewhere than its interface.
var acrossSeam = map[string]string{
	"weft/internal/simnet": "weft/router/underlay",
}

// steps order packages of one layer among themselves: those of the bench, of a session and of frames; imports go
// down here too.
var steps = map[string]int{
	"weft/internal/node":         2,
	"weft/internal/apiserver":    1,
	"weft/internal/controlplane": 1,
	"weft/internal/datapath":     1,
	"weft/internal/doctor":       1,
	"weft/internal/hostcheck":    1,
	"weft/internal/leases":       1,
	"weft/internal/peermetrics":  1,

	"weft/internal/leases/deletions": 2,
	"weft/internal/statuspage":       2,
	"weft/internal/leases/holder":    1,
	"weft/internal/podlink":          0,

	"weft/internal/settings":   3,
	"weft/internal/hostports":  1,
	"weft/internal/hostfilter": 0,
	"weft/internal/hostroutes": 1,
	"weft/internal/hostnet":    0,

	"weft/internal/kube/firewall": 1,
	"weft/internal/hostwatch":     1,
	"weft/internal/nftwatch":      0,

	"weft/internal/kube/domains": 1,
	"weft/internal/kube/policy":  0,

	"weft/bench/harness": 3,
	"weft/bench/scale":   2,
	"weft/bench/load":    2,
	"weft/bench/driver":  1,
	"weft/bench/report":  1,
	"weft/bench/gate":    1,

	"weft/bench/kubernetes": 1,

	"weft/bench/probe":  1,
	"weft/bench/lab":    0,
	"weft/bench/meter":  0,
	"weft/bench/sample": 0,

	"weft/mesh/epoch":        1,
	"weft/internal/identity": 0,

	"weft/router/carrier/wireguard":  2,
	"weft/router/carrier/vxlan":      1,
	"weft/router/carrier/direct":     1,
	"weft/router/carrier/framewatch": 0,
	"weft/router/carrier":            0,

	"weft/tap":        0,
	"weft/tap/bridge": 0,

	"weft/router/relay":     1,
	"weft/router/underlay":  0,
	"weft/router/segmenter": 2,

	"weft/router/session": 1,
	"weft/router/watch":   1,
	"weft/router/capture": 0,
	"weft/router/flows":   0,
	"weft/tap/virtio":     0,
	"weft/router/wire":    0,

	"weft/mesh/freshness": 1,
	"weft/mesh/keyring":   1,
	"weft/mesh/seal":      0,

	"weft/internal/flowhash": 2,
	"weft/internal/packet":   1,
	"weft/internal/ether":    0,
}

// stepsDown reports whether an import within a layer goes down the steps.
func stepsDown(from, imported string) bool {
	upper, ok := steps[from]
	lower, known := steps[imported]
	return ok && known && lower < upper
}

func layerOf(path string) (int, bool) {
	path = strings.TrimPrefix(path, "weft/")
	for _, l := range layers {
		if folder, below := strings.CutSuffix(l.pattern, "/..."); below {
			if path == folder || strings.HasPrefix(path, folder+"/") {
				return l.layer, true
			}
		} else if path == l.pattern {
			return l.layer, true
		}
	}
	return 0, false
}

// listedPackage is what "go list" says about a package.
type listedPackage struct {
	ImportPath, Dir, Export string
	GoFiles, Imports        []string
}

// listPackages runs "go list -json" with arguments.
func listPackages(t *testing.T, args ...string) (list []listedPackage) {
	t.Helper()
	args = append([]string{"list", "-json=ImportPath,Dir,Export,GoFiles,Imports"}, args...)
	out, err := exec.CommandContext(t.Context(), "go", args...).Output()
	if err != nil {
		t.Fatalf("go %s: %v", strings.Join(args, " "), err)
	}
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p listedPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return list
		} else if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
}

// loadPackages returns all packages of weft.
func loadPackages(t *testing.T) []listedPackage {
	t.Helper()
	return listPackages(t, "weft/...")
}

func TestImportsGoDown(t *testing.T) {
	for _, p := range loadPackages(t) {
		from, ok := layerOf(p.ImportPath)
		if !ok {
			t.Errorf("%s is in no layer: give it one here and in docs/ARCHITECTURE.md", p.ImportPath)
			continue
		}
		for _, imported := range p.Imports {
			if !strings.HasPrefix(imported, "weft/") || besideSeam(p.ImportPath, imported) || acrossSeam[p.ImportPath] == imported ||
				stepsDown(p.ImportPath, imported) {
				continue
			}
			if to, ok := layerOf(imported); ok && to >= from {
				t.Errorf("%s (layer %d) imports %s (layer %d): imports go strictly down", p.ImportPath, from, imported, to)
			}
		}
	}
}
