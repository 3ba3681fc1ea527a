#!/bin/bash
# Debian packages of the lab.
#   etcd-server, runc, openssl             the cluster
#   iptables, nftables, conntrack, ipset   kube-proxy
#   umoci, busybox-static                  images
#   netcat-openbsd … iperf                 programs that the upstream tests run in the image agnhost
set -euo pipefail
packages="etcd-server runc openssl iptables nftables conntrack ipset umoci busybox-static
	netcat-openbsd bind9-dnsutils iproute2 iputils-ping curl iperf tcpdump"
missing=
for p in $packages; do
	dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
[ -n "$missing" ] || exit 0
apt-get update -qq
# shellcheck disable=SC2086 # a list of names
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
