#!/bin/bash
# network.sh api      creates the network namespace of the API host, with the bridge that connects the nodes
# network.sh node I   creates the network namespace of node I and connects it
set -euo pipefail
. "$LAB/settings.sh"

# in_namespace NAME CMD…
in_namespace() { nsenter --net="/run/netns/weftlab-$1" "${@:2}"; }

# add_addresses NAMESPACE DEVICE HOST: the addresses of the underlay with that number, of the families of the cluster
add_addresses() {
	if [ "$LAB_FAMILY" != ipv6 ]; then
		in_namespace "$1" ip addr add "$UNDERLAY4$3/24" dev "$2"
	fi
	if [ "$LAB_FAMILY" != ipv4 ]; then
		in_namespace "$1" ip addr add "$UNDERLAY6$3/64" dev "$2" nodad
	fi
}

case $1 in
api)
	ip netns add weftlab-api
	in_namespace api ip link set lo up
	in_namespace api ip link add ul0 type bridge
	in_namespace api ip link set ul0 up
	add_addresses api ul0 1
	# The API host is the router of the nodes, and refuses packets to the rest of the world at once. Without that, the pull of an image that
	# the lab does not have would wait for DNS, and hold up the pulls of other pods.
	in_namespace api sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
	in_namespace api ip route add unreachable default
	in_namespace api ip -6 route add unreachable default
	;;
node)
	i=$2
	ip netns add "weftlab-node$i"
	in_namespace "node$i" ip link set lo up
	in_namespace api ip link add "n$i" type veth peer name eth0 netns "weftlab-node$i"
	in_namespace api ip link set "n$i" master ul0 up
	in_namespace "node$i" ip link set eth0 up
	add_addresses "node$i" eth0 "1$i"
	# Programs expect a default route.
	if [ "$LAB_FAMILY" != ipv6 ]; then
		in_namespace "node$i" ip route add default via "${UNDERLAY4}1"
		in_namespace "node$i" sysctl -qw net.ipv4.ip_forward=1
	fi
	if [ "$LAB_FAMILY" != ipv4 ]; then
		in_namespace "node$i" ip -6 route add default via "${UNDERLAY6}1"
		in_namespace "node$i" sysctl -qw net.ipv6.conf.all.forwarding=1
	fi
	;;
esac
