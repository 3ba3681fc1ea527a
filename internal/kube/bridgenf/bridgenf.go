// Package bridgenf keeps the packets that cross the bridges of pods visible to the host's packet filter.
//
// The kernel module br_netfilter passes bridged IP packets to the hooks of IPv4 and IPv6 if net.bridge.bridge-nf-call-iptables (or
// -ip6tables) is 1, or if the bridge has the option nf_call_iptables (nf_call_ip6tables). Policies and Services need that. Other
// programs set the sysctl to 0 for bridges of their own. The option holds in spite of it, so it is set on each bridge of pods, and
// the sysctl is restored where /proc/sys is writable.
package bridgenf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Settings is the folder of the settings in the network namespace of the process.
const Settings = "/proc/sys/net/bridge"

// ErrMissing means that the kernel cannot pass bridged packets to its packet filter.
var ErrMissing = errors.New("bridgenf: the kernel module br_netfilter is not loaded: Services and network policies do not work " +
	"between pods of one node; load it on the host (modprobe br_netfilter; echo br_netfilter > /etc/modules-load.d/weft.conf)")

// ErrHidden means that bridged packets do not pass the packet filter, and that this could not be changed.
var ErrHidden = errors.New("bridgenf: packets between pods of this node do not pass the host's packet filter, so pods with network " +
	"policies get none; run sysctl -w net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1 on the host")

// family is one of the two address families, with its sysctl and the name of the option of a bridge.
type family struct {
	sysctl, option string
}

var families = [...]family{
	{"bridge-nf-call-iptables", "nf_call_iptables"},
	{"bridge-nf-call-ip6tables", "nf_call_ip6tables"},
}

// bridge is a bridge with a port of a pod. on has the state of the option of each family; nil: the kernel has no such option.
type bridge struct {
	name  string
	index int
	on    []bool
}

// Keeper keeps packets visible. Its fields must not change.
type Keeper struct {
	// PortPrefix is the prefix of the names of pods' ports.
	PortPrefix string
	// Dir is the folder of the settings; usually Settings.
	Dir string
}

// Restore turns on what is off, and returns what had hidden packets: sysctls and options of bridges. Its error wraps ErrMissing or
// ErrHidden if bridged packets are not visible now.
func (k Keeper) Restore() (restored []string, err error) {
	if _, err := os.Stat(k.Dir); errors.Is(err, fs.ErrNotExist) {
		return nil, ErrMissing
	}
	bridges, err := bridgesOf(k.PortPrefix)
	if err != nil {
		return nil, err
	}
	var failed []error
	for i, f := range families {
		was, now, writeErr := turnOn(filepath.Join(k.Dir, f.sysctl))
		if now && !was {
			restored = append(restored, "net.bridge."+f.sysctl)
		}
		for _, b := range bridges {
			if len(b.on) == 0 || b.on[i] {
				continue
			}
			if err := b.turnOn(i); err != nil {
				writeErr = errors.Join(writeErr, err)
				continue
			}
			if b.on[i] = true; !was {
				restored = append(restored, "bridge "+b.name+" "+f.option)
			}
		}
		if !now && !allOn(bridges, i) {
			failed = append(failed, fmt.Errorf("%w: %w", ErrHidden, writeErr))
		}
	}
	return restored, errors.Join(failed...)
}

// allOn reports whether each of the bridges has the option of a family.
func allOn(bridges []bridge, i int) bool {
	for _, b := range bridges {
		if len(b.on) == 0 || !b.on[i] {
			return false
		}
	}
	return true
}

// turnOn sets a sysctl to 1, unless it is, and returns whether it was and is now. In a container /proc/sys may be read-only.
func turnOn(path string) (was, now bool, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return false, false, fmt.Errorf("bridgenf: read setting: %w", err)
	}
	if strings.TrimSpace(string(text)) == "1" {
		return true, true, nil
	}
	if err := os.WriteFile(path, []byte("1"), 0); err != nil {
		return false, false, fmt.Errorf("bridgenf: change setting: %w", err)
	}
	return false, true, nil
}
