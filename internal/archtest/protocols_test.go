package archtest

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestProtocolsByNumber: rules name protocols by number. nft looks most names up in /etc/protocols,
// which images and small hosts lack.
func TestProtocolsByNumber(t *testing.T) {
	named := regexp.MustCompile(`(l4proto|ip protocol|nexthdr)[^"` + "`" + `]*\b(icmp|icmpv6|ipv6-icmp|tcp|udp|sctp|igmp|ah|esp)\b`)
	for _, p := range loadPackages(t) {
		if strings.HasPrefix(p.ImportPath, "weft/bench/") {
			continue
		}
		for _, name := range p.GoFiles {
			text, err := os.ReadFile(filepath.Join(p.Dir, name))
			if err != nil {
				t.Fatal(err)
			}
			for n, line := range strings.Split(string(text), "\n") {
				if strings.HasPrefix(p.ImportPath, "weft/internal/hostfilter") { // it reads the rules of other programs
					continue
				}
				if named.MatchString(line) {
					t.Errorf("%s/%s:%d: write the number of the protocol: %s", p.ImportPath, name, n+1, strings.TrimSpace(line))
				}
			}
		}
	}
}
