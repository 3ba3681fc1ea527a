package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"weft/internal/podlink"
)

// sysctl returns a network setting as a number; ok is false where the kernel does not have it.
func sysctl(path string) (value int, ok bool) {
	text, err := os.ReadFile(filepath.Join("/proc/sys/net", path))
	if err != nil {
		return 0, false
	}
	value, err = strconv.Atoi(strings.TrimSpace(string(text)))
	return value, err == nil
}

func hasCapability(bit uint) (bool, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false, fmt.Errorf("daemon: reading own capabilities: %w", err)
	}
	return data[bit/32].Effective&(1<<(bit%32)) != 0, nil
}

func lookForwarding(_ context.Context, c *Config) finding {
	if c.NoMasquerade {
		return well("not needed (--no-masquerade)")
	}
	for _, s := range []struct {
		path   string
		wanted bool
	}{
		{"ipv4/ip_forward", slices.ContainsFunc(c.Ranges, func(r netip.Prefix) bool { return r.Addr().Is4() })},
		{"ipv6/conf/all/forwarding", c.hasIPv6()},
	} {
		value, ok := sysctl(s.path)
		if !s.wanted || value == 1 {
			continue
		}
		name := "net." + strings.ReplaceAll(s.path, "/", ".")
		if !ok {
			return worry("Turn the family on, or give no range of it.", "the kernel does not have %s", name)
		}
		if err := unix.Access("/proc/sys/net/"+s.path, unix.W_OK); err != nil {
			return worry(fmt.Sprintf("Set it before: sysctl -w %s=1", name), "%s is off and cannot be turned on from here (%v): pods do not reach beyond the overlay", name, err)
		}
		return well("%s is off; weft turns it on", name)
	}
	return well("on")
}

// lookBridgeNF looks whether frames between pods of one host go through iptables, and what is there.
func lookBridgeNF(ctx context.Context, c *Config) finding {
	if on, _ := sysctl("bridge/bridge-nf-call-iptables"); on != 1 {
		return well("frames between pods do not pass iptables")
	}
	chain, err := dropping(ctx, "forward")
	if err != nil {
		return finding{unknown: true, detail: fmt.Sprintf("frames between pods pass iptables; what that drops is not known: %v", err)}
	}
	if chain != "" {
		return worry(fmt.Sprintf("sysctl -w net.bridge.bridge-nf-call-iptables=0, or outside of Kubernetes: iptables -I FORWARD -i %s -o %s -j ACCEPT", c.Bridge, c.Bridge),
			"net.bridge.bridge-nf-call-iptables is 1 and %s drops by default: frames between pods of this host may not pass", chain)
	}
	return well("frames between pods pass iptables, where nothing drops by default")
}

// lookFirewall looks for chains that drop what they do not know.
func lookFirewall(ctx context.Context, c *Config) finding {
	chain, err := dropping(ctx, "input")
	if err != nil {
		return finding{unknown: true, detail: fmt.Sprintf("what drops by default is not known: %v", err)}
	}
	if chain != "" {
		return worry(fmt.Sprintf("See to it that TCP and UDP %d and UDP %d and %d are let in from the other nodes.", c.Port, c.Port+1, c.Port+2),
			"%s drops by default what comes to this host", chain)
	}
	if chain, err = dropping(ctx, "forward"); err == nil && chain != "" && !c.NoMasquerade {
		return worry(fmt.Sprintf("Let pods out and answers in: iptables -I FORWARD -i %s -j ACCEPT; iptables -I FORWARD -o %s -j ACCEPT", c.Bridge, c.Bridge),
			"%s drops by default what is forwarded: pods may not reach beyond the overlay", chain)
	}
	return well("nothing drops by default")
}

// dropping returns the name of a base chain of the hook, of IP, that drops by default, and nothing where there is none; the
// error says why nft cannot tell.
func dropping(ctx context.Context, hook string) (chain string, err error) {
	out, err := exec.CommandContext(ctx, "nft", "--json", "list", "chains").Output()
	if err != nil {
		return "", fmt.Errorf("daemon: listing chains: %w", err)
	}
	return droppingChain(out, hook), nil
}

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

// lookReversePath looks for strict reverse path filtering (RFC 3704), which drops what comes in by another interface than the answer would
// leave by: datagrams, where a host has several ways to a peer.
func lookReversePath(context.Context, *Config) finding {
	const strict = 1
	all, _ := sysctl("ipv4/conf/all/rp_filter")
	paths, _ := filepath.Glob("/proc/sys/net/ipv4/conf/*/rp_filter")
	var links []string
	for _, path := range paths {
		name := filepath.Base(filepath.Dir(path))
		if slices.Contains([]string{"all", "default", "lo"}, name) || !isHardware(name) {
			continue
		}
		// The kernel takes the larger of the two (ip-sysctl.rst).
		if own, _ := sysctl("ipv4/conf/" + name + "/rp_filter"); max(all, own) == strict {
			links = append(links, name)
		}
	}
	if len(links) > 1 {
		return worry("sysctl -w net.ipv4.conf.all.rp_filter=2 where peers are reached by more than one of them.",
			"it is strict on %s: datagrams that come by another interface than they are answered by are dropped", strings.Join(links, ", "))
	}
	return well("not in the way")
}

// isHardware reports whether a link is a device of the host, not one that software has made.
func isHardware(name string) bool {
	_, err := os.Stat(filepath.Join("/sys/class/net", name, "device"))
	return err == nil
}

// lookManagers looks for programs that take interfaces which they have not made for theirs.
func lookManagers(_ context.Context, c *Config) finding {
	if _, err := os.Stat("/run/NetworkManager"); errors.Is(err, fs.ErrNotExist) {
		return well("no NetworkManager runs")
	}
	for _, folder := range []string{"/etc", "/usr/lib", "/run"} {
		files, _ := filepath.Glob(filepath.Join(folder, "NetworkManager/conf.d/*.conf"))
		for _, file := range files {
			if text, err := os.ReadFile(file); err == nil && strings.Contains(string(text), c.Bridge) {
				return well("%s speaks of %s", file, c.Bridge)
			}
		}
	}
	return worry(fmt.Sprintf("Write to /etc/NetworkManager/conf.d/weft.conf: [keyfile] unmanaged-devices=interface-name:%s;interface-name:%s;interface-name:"+podlink.HostPrefix+"*;"+
		"interface-name:weftvx*", c.Bridge, c.Tap), "NetworkManager runs and may take %s and %s", c.Bridge, c.Tap)
}
