# Settings of the lab. All scripts read this file first.
#
#   LAB_HOME             folder for programs, images and the running cluster
#   LAB_FAMILY           ipv4, dual or ipv6: address families of nodes, pods and Services
#   LAB_PROXY_MODE       iptables or nftables: mode of kube-proxy
#   LAB_PODS_PER_NODE    maximum number of pods of a node
#
# The last three have an effect on "lab up". The running cluster keeps them in a file, so that later commands agree with it.
LAB_HOME=${LAB_HOME:-$HOME/.cache/weft-lab}
PROGRAMS=$LAB_HOME/bin
IMAGES=$LAB_HOME/img
CLUSTER=$LAB_HOME/cluster
if [ -f "$CLUSTER/settings" ]; then
	. "$CLUSTER/settings"
fi
LAB_FAMILY=${LAB_FAMILY:-ipv4}
LAB_PROXY_MODE=${LAB_PROXY_MODE:-iptables}
LAB_PODS_PER_NODE=${LAB_PODS_PER_NODE:-330}
export LAB_HOME LAB_FAMILY LAB_PROXY_MODE LAB_PODS_PER_NODE

NODES="1 2"
API_NETNS=/run/netns/weftlab-api
PATH=$PROGRAMS:$PATH

# Addresses. Node I has 172.30.0.1I and fd00:172:30::1I.
# The pod ranges are in the configuration of the control plane and kube-proxy; weft gets the same in WEFT_RANGE.
UNDERLAY4=172.30.0. UNDERLAY6=fd00:172:30::
case $LAB_FAMILY in
ipv4)
	API_ADDRESS=${UNDERLAY4}1 API_URL=https://${UNDERLAY4}1:6443
	POD_RANGE=10.244.0.0/16 SERVICE_RANGE=10.96.0.0/16 DNS_ADDRESSES=10.96.0.10
	;;
dual)
	API_ADDRESS=${UNDERLAY4}1 API_URL=https://${UNDERLAY4}1:6443
	POD_RANGE=10.244.0.0/16,fd00:244::/56 SERVICE_RANGE=10.96.0.0/16,fd00:10:96::/112 DNS_ADDRESSES=10.96.0.10,fd00:10:96::a
	;;
ipv6)
	API_ADDRESS=${UNDERLAY6}1 API_URL=https://[${UNDERLAY6}1]:6443
	POD_RANGE=fd00:244::/56 SERVICE_RANGE=fd00:10:96::/112 DNS_ADDRESSES=fd00:10:96::a
	;;
*)
	echo "LAB_FAMILY is $LAB_FAMILY: use ipv4, dual or ipv6" >&2
	exit 2
	;;
esac
export API_ADDRESS API_URL POD_RANGE SERVICE_RANGE

# node_addresses I prints the addresses of a node, the primary one first, separated by a comma.
node_addresses() {
	case $LAB_FAMILY in
	ipv4) echo "${UNDERLAY4}1$1" ;;
	dual) echo "${UNDERLAY4}1$1,${UNDERLAY6}1$1" ;;
	ipv6) echo "${UNDERLAY6}1$1" ;;
	esac
}

# on_node I CMD… runs a command in the namespaces of a node.
on_node() { nsenter -t "$(cat "$CLUSTER/run/node$1.pid")" -m -n -u "${@:2}"; }

# exec_on_node is on_node, in place of the shell: signals reach the command.
exec_on_node() { exec nsenter -t "$(cat "$CLUSTER/run/node$1.pid")" -m -n -u "${@:2}"; }

# cgroup_roots prints the mounted hierarchies of cgroups: one with cgroup v2, several with v1.
cgroup_roots() {
	if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
		echo /sys/fs/cgroup
	else
		ls -d /sys/fs/cgroup/{cpu,cpuacct,cpuset,memory,devices,freezer,blkio,pids,systemd} 2>/dev/null
	fi
}
