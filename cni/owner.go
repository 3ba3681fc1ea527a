package cni

import "strings"

// ownerPrefix tells the plugin's leases from those of other users of the daemon.
const ownerPrefix = "cni"

// Owner returns the name under which the daemon leases addresses to a container's interface:
//
//	cni/NETWORK/CONTAINER/IFNAME
//
// None of the parts can hold a slash: the specification and the kernel forbid it. The network is in it because GC of
// one network must not touch the attachments of another one that the same daemon serves.
func HolderOf(network, containerID, ifname string) string {
	return strings.Join([]string{ownerPrefix, network, containerID, ifname}, "/")
}

// ParseOwner takes an owner apart; not ok if Owner did not make it.
func ParseHolder(owner string) (network, containerID, ifname string, ok bool) {
	parts := strings.Split(owner, "/")
	if len(parts) != 4 || parts[0] != ownerPrefix || parts[1] == "" || parts[2] == "" || parts[3] == "" {
		return "", "", "", false
	}
	return parts[1], parts[2], parts[3], true
}
