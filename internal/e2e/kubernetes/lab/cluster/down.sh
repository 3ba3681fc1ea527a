#!/bin/bash
# Stops the cluster. Logs stay in $LAB_HOME/cluster/log until the next start.
set -euo pipefail
. "$LAB/settings.sh"
[ -e "$API_NETNS" ] || exit 0
for i in $NODES; do
	"$LAB/cluster/kill.sh" "$i"
done
for name in scheduler controller-manager apiserver etcd; do
	if [ -s "$CLUSTER/run/$name.pid" ]; then
		kill -9 "$(cat "$CLUSTER/run/$name.pid")" 2>/dev/null || true
		rm -f "$CLUSTER/run/$name.pid"
	fi
done
ip netns del weftlab-api
for i in $NODES; do
	rm -rf "$CLUSTER/node$i" || echo "$CLUSTER/node$i is not empty" >&2
done
rm -rf "$CLUSTER/etcd" "$CLUSTER/settings"
# The kubelet sets these; the kernel's defaults are:
sysctl -qw vm.overcommit_memory=0 kernel.panic_on_oops=0
