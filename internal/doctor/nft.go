package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
)

// dropping returns the name of a base chain of an IP family at the given hook that drops by default, or an empty string. The
// error says why nft cannot list the chains.
func dropping(ctx context.Context, hook string) (chain string, err error) {
	out, err := exec.CommandContext(ctx, "nft", "--json", "list", "chains").Output()
	if err != nil {
		return "", fmt.Errorf("doctor: listing chains: %w", err)
	}
	return droppingChain(out, hook), nil
}

// droppingChain finds such a chain in the JSON of "nft list chains" (libnftables-json(5)).
func droppingChain(text []byte, hook string) string {
	var doc struct {
		Nftables []struct {
			Chain *struct{ Family, Table, Name, Hook, Policy string }
		}
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		return ""
	}
	for _, o := range doc.Nftables {
		if c := o.Chain; c != nil && c.Hook == hook && c.Policy == "drop" && slices.Contains([]string{"ip", "ip6", "inet"}, c.Family) {
			return fmt.Sprintf("chain %s of table %s %s", c.Name, c.Family, c.Table)
		}
	}
	return ""
}
