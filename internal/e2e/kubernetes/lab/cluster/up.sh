#!/bin/bash
# Starts the cluster: certificates, networks, the control plane, then the nodes.
set -euo pipefail
if [ -e /run/netns/weftlab-api ]; then
	echo "a cluster runs already: stop it with \"lab down\"" >&2
	exit 1
fi
# Settings of an earlier cluster have no effect.
rm -f "${LAB_HOME:-$HOME/.cache/weft-lab}/cluster/settings"
. "$LAB/settings.sh"
rm -rf "$CLUSTER"
mkdir -p "$CLUSTER"/{run,log}
cat >"$CLUSTER/settings" <<END
LAB_FAMILY=$LAB_FAMILY
LAB_PROXY_MODE=$LAB_PROXY_MODE
LAB_PODS_PER_NODE=$LAB_PODS_PER_NODE
END

"$LAB/cluster/certificates.sh"
"$LAB/cluster/network.sh" api
"$LAB/cluster/control-plane.sh"
for i in $NODES; do
	"$LAB/cluster/network.sh" node "$i"
	"$LAB/cluster/node.sh" "$i"
done
for i in $NODES; do
	for _ in $(seq 300); do
		"$LAB/lab" k get node "node$i" >/dev/null 2>&1 && continue 2
		sleep 0.3
	done
	echo "node$i has not registered: see $CLUSTER/log" >&2
	exit 1
done
