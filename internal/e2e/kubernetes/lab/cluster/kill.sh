#!/bin/bash
# kill.sh I: crashes node I. All its processes get SIGKILL, so its mounts and network are lost; its disk stays.
set -euo pipefail
. "$LAB/settings.sh"
i=$1
pidfile=$CLUSTER/run/node$i.pid

# mount_namespace PID
mount_namespace() { readlink "/proc/$1/ns/mnt" 2>/dev/null || true; }

# pids prints the processes of pods, which are in the cgroups of the node, and those in the mount namespace of the node.
pids() {
	for root in $(cgroup_roots); do
		[ ! -d "$root/weftlab$i" ] || find "$root/weftlab$i" -name cgroup.procs -exec cat {} + 2>/dev/null || true
	done
	[ -s "$pidfile" ] || return 0
	local own
	own=$(mount_namespace "$(cat "$pidfile")")
	if [ -z "$own" ] || [ "$own" = "$(mount_namespace self)" ]; then
		return 0 # the node has ended, and its process ID may belong to another process
	fi
	for p in /proc/[0-9]*; do
		if [ "$(mount_namespace "${p#/proc/}")" = "$own" ]; then
			echo "${p#/proc/}"
		fi
	done
}

for _ in $(seq 50); do
	found=$(pids | sort -un)
	[ -n "$found" ] || break
	# shellcheck disable=SC2086 # a list of process IDs
	kill -9 $found 2>/dev/null || true
	sleep 0.1
done
rm -f "$pidfile"
for root in $(cgroup_roots); do
	[ ! -d "$root/weftlab$i" ] || find "$root/weftlab$i" -depth -type d -exec rmdir {} + 2>/dev/null || true
done
if [ -e "/run/netns/weftlab-node$i" ]; then
	ip netns del "weftlab-node$i"
fi
# The end of the cable in the API host goes away with the namespace, but a little later.
nsenter --net="$API_NETNS" ip link del "n$i" 2>/dev/null || true
rm -rf "$CLUSTER/node$i/run"
