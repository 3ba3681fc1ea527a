#!/bin/bash
# node.sh I: starts node I in its network namespace, with mount and UTS namespaces of its own. A folder on the host is its disk.
set -euo pipefail
. "$LAB/settings.sh"
i=$1
disk=$CLUSTER/node$i
mkdir -p "$disk"/{run,kubelet,containerd,cni,weft,etc-cni,opt-cni,log-pods,log-containers,etc-kubernetes}

# The kubelet creates the cgroups of pods below one of the node, in each hierarchy.
for root in $(cgroup_roots); do
	mkdir -p "$root/weftlab$i"
	if [ -f "$root/cgroup.subtree_control" ]; then
		for controller in cpuset cpu io memory pids; do
			echo "+$controller" >"$root/cgroup.subtree_control"
			echo "+$controller" >"$root/weftlab$i/cgroup.subtree_control"
		done
	elif [ -f "$root/cpuset.cpus" ]; then
		for file in cpuset.cpus cpuset.mems; do cat "$root/$file" >"$root/weftlab$i/$file"; done
	fi
done

cat >"$disk/containerd.toml" <<END
version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
address = "/run/containerd/containerd.sock"
[metrics]
address = "127.0.0.1:1338"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "registry.k8s.io/pause:3.10"
[plugins."io.containerd.cri.v1.runtime"]
disable_apparmor = true
restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["/opt/cni/bin"]
conf_dir = "/etc/cni/net.d"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
SystemdCgroup = false
[plugins."io.containerd.grpc.v1.cri"]
stream_server_address = "127.0.0.1"
END

echo "nameserver $API_ADDRESS" >"$disk/resolv.conf"
cat >"$disk/kubelet.yaml" <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
failSwapOn: false
cgroupDriver: cgroupfs
cgroupRoot: /weftlab$i
enforceNodeAllocatable: []
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $CLUSTER/pki/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $CLUSTER/pki/node$i.crt
tlsPrivateKeyFile: $CLUSTER/pki/node$i.key
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
resolvConf: $disk/resolv.conf
clusterDNS: [$DNS_ADDRESSES]
clusterDomain: cluster.local
# The machine is shared with other programs: never evict pods, and keep all images, since no registry has them.
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 50Mi, nodefs.available: 0%, imagefs.available: 0%, nodefs.inodesFree: 0%}
maxPods: $LAB_PODS_PER_NODE
syncFrequency: 10s
nodeStatusUpdateFrequency: 5s
registryPullQPS: 0
END

setsid nohup nsenter --net="/run/netns/weftlab-node$i" unshare -m -u --propagation private "$LAB/cluster/node-main.sh" "$i" \
	>"$CLUSTER/log/node$i.log" 2>&1 </dev/null &
