#!/bin/bash
# Starts etcd, the API server, the controller manager and the scheduler in the network namespace of the API host.
set -euo pipefail
. "$LAB/settings.sh"
pki=$CLUSTER/pki

# start NAME CMD… starts a program in the background. Its process ID is in run/NAME.pid, its output in log/NAME.log.
start() {
	local name=$1
	shift
	setsid nohup nsenter --net="$API_NETNS" "$@" >"$CLUSTER/log/$name.log" 2>&1 </dev/null &
	echo $! >"$CLUSTER/run/$name.pid"
}

start etcd etcd --data-dir "$CLUSTER/etcd" --unsafe-no-fsync \
	--listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380

start apiserver "$PROGRAMS/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 --advertise-address="$API_ADDRESS" --bind-address=:: \
	--secure-port=6443 --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" --client-ca-file="$pki/ca.crt" \
	--kubelet-client-certificate="$pki/kubelet-client.crt" --kubelet-client-key="$pki/kubelet-client.key" \
	--kubelet-preferred-address-types=InternalIP --service-account-issuer=https://kubernetes.default.svc.cluster.local \
	--service-account-key-file="$pki/sa.pub" --service-account-signing-key-file="$pki/sa.key" \
	--service-cluster-ip-range="$SERVICE_RANGE" --authorization-mode=Node,RBAC --allow-privileged=true \
	--enable-admission-plugins=NodeRestriction --enable-aggregator-routing=true --requestheader-client-ca-file="$pki/ca.crt" \
	--requestheader-allowed-names=front-proxy --requestheader-username-headers=X-Remote-User \
	--requestheader-group-headers=X-Remote-Group --requestheader-extra-headers-prefix=X-Remote-Extra- \
	--proxy-client-cert-file="$pki/front-proxy.crt" --proxy-client-key-file="$pki/front-proxy.key"
ready=
for _ in $(seq 240); do
	if "$LAB/lab" k get --raw /readyz >/dev/null 2>&1; then
		ready=yes
		break
	fi
	sleep 0.5
done
[ -n "$ready" ] || { echo "the API server is not ready after two minutes: see $CLUSTER/log/apiserver.log" >&2; exit 1; }

# The limits of the client let hundreds of pods start at once.
start controller-manager "$PROGRAMS/kube-controller-manager" --kubeconfig="$pki/controller-manager.kubeconfig" \
	--service-account-private-key-file="$pki/sa.key" --root-ca-file="$pki/ca.crt" --use-service-account-credentials=true \
	--cluster-signing-cert-file="$pki/ca.crt" --cluster-signing-key-file="$pki/ca.key" \
	--allocate-node-cidrs=true --cluster-cidr="$POD_RANGE" --service-cluster-ip-range="$SERVICE_RANGE" \
	--kube-api-qps=200 --kube-api-burst=400 --leader-elect=false --bind-address=127.0.0.1
start scheduler "$PROGRAMS/kube-scheduler" --kubeconfig="$pki/scheduler.kubeconfig" --leader-elect=false --bind-address=127.0.0.1
