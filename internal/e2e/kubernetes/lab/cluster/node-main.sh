#!/bin/bash
# node-main.sh I: the first process of node I, inside its namespaces: mounts the disk, then starts containerd, the kubelet and kube-proxy.
set -euo pipefail
. "$LAB/settings.sh"
i=$1
disk=$CLUSTER/node$i

mount --make-rslave /
mount --bind "$disk/run" /run
mount --make-shared /run
mkdir -p /run/netns /run/lock
# on FOLDER PATH mounts a folder of the disk.
on() {
	mkdir -p "$2"
	mount --bind "$disk/$1" "$2"
}
on kubelet /var/lib/kubelet
on containerd /var/lib/containerd
on cni /var/lib/cni
on weft /var/lib/weft
on etc-cni /etc/cni
on opt-cni /opt/cni
on log-pods /var/log/pods
on log-containers /var/log/containers
on etc-kubernetes /etc/kubernetes
mount --make-rshared /
mkdir -p /opt/cni/bin /etc/cni/net.d
hostname "node$i"
echo $$ >"$CLUSTER/run/node$i.pid"

"$PROGRAMS/containerd" -c "$disk/containerd.toml" >"$CLUSTER/log/containerd$i.log" 2>&1 &
until ctr version >/dev/null 2>&1; do sleep 0.2; done
for archive in "$IMAGES"/*.tar; do ctr -n k8s.io images import "$archive" >/dev/null; done
while read -r alias image; do
	ctr -n k8s.io images tag --force "$image" "$alias" >/dev/null
done < <(grep -v '^#' "$LAB/images/aliases")

"$PROGRAMS/kubelet" --config="$disk/kubelet.yaml" --kubeconfig="$CLUSTER/pki/node$i.kubeconfig" --hostname-override="node$i" \
	--node-ip="$(node_addresses "$i")" --v=2 >"$CLUSTER/log/kubelet$i.log" 2>&1 &
"$PROGRAMS/kube-proxy" --kubeconfig="$CLUSTER/pki/proxy.kubeconfig" --hostname-override="node$i" --proxy-mode="$LAB_PROXY_MODE" \
	--cluster-cidr="$POD_RANGE" --conntrack-max-per-core=0 --v=2 >"$CLUSTER/log/proxy$i.log" 2>&1 &
wait
