#!/bin/bash
# Stops the cluster. Logs stay in $LAB_HOME/cluster/log until the next start.
set -euo pipefail
. "$LAB/settings.sh"
[ -e "$API_NETNS" ] || exit 0
# All processes on the API host end at once: the control plane, and upstream tests of a run that was interrupted, which would otherwise
# record that the cluster is gone as a failure of their own.
for _ in $(seq 50); do
	found=$(ip netns pids weftlab-api)
	[ -n "$found" ] || break
	# shellcheck disable=SC2086 # a list of process IDs
	kill -9 $found 2>/dev/null || true
	sleep 0.1
done
for i in $NODES; do
	"$LAB/cluster/kill.sh" "$i"
done
ip netns del weftlab-api
for i in $NODES; do
	rm -rf "$CLUSTER/node$i" || echo "$CLUSTER/node$i is not empty" >&2
done
rm -rf "$CLUSTER/etcd" "$CLUSTER/settings"
# The kubelet sets these; the kernel's defaults are:
sysctl -qw vm.overcommit_memory=0 kernel.panic_on_oops=0
