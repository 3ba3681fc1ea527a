#!/bin/bash
# Creates the CA, the certificates and the kubeconfig files of the cluster.
set -euo pipefail
. "$LAB/settings.sh"
pki=$CLUSTER/pki
mkdir -p "$pki"
cd "$pki"

openssl ecparam -name prime256v1 -genkey -noout -out ca.key
openssl req -x509 -new -key ca.key -days 365 -subj /CN=weftlab -out ca.crt
openssl genrsa -out sa.key 2048 2>/dev/null
openssl rsa -in sa.key -pubout -out sa.pub 2>/dev/null

# certificate NAME SUBJECT [ALTERNATIVE-NAMES]
certificate() {
	openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"
	openssl req -new -key "$1.key" -subj "$2" -out "$1.csr"
	printf '%s\n' keyUsage=digitalSignature extendedKeyUsage=serverAuth,clientAuth ${3:+"subjectAltName=$3"} >"$1.ext"
	openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 365 -extfile "$1.ext" -out "$1.crt" 2>/dev/null
}

# kubeconfig NAME: for the client with the certificate NAME
kubeconfig() {
	cat >"$1.kubeconfig" <<END
apiVersion: v1
kind: Config
clusters: [{name: lab, cluster: {server: "$API_URL", certificate-authority: $pki/ca.crt}}]
users: [{name: $1, user: {client-certificate: $pki/$1.crt, client-key: $pki/$1.key}}]
contexts: [{name: lab, context: {cluster: lab, user: $1}}]
current-context: lab
END
}

# client NAME SUBJECT [ALTERNATIVE-NAMES]
client() {
	certificate "$@"
	kubeconfig "$1"
}

names=DNS:localhost
for name in kubernetes kubernetes.default kubernetes.default.svc kubernetes.default.svc.cluster.local; do
	names=$names,DNS:$name
done
certificate apiserver /CN=kube-apiserver \
	"IP:127.0.0.1,IP:${UNDERLAY4}1,IP:${UNDERLAY6}1,IP:10.96.0.1,IP:fd00:10:96::1,$names"
certificate kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client
certificate front-proxy /CN=front-proxy
client admin /O=system:masters/CN=admin
client controller-manager /CN=system:kube-controller-manager
client scheduler /CN=system:kube-scheduler
client proxy /CN=system:kube-proxy
for i in $NODES; do
	client "node$i" "/O=system:nodes/CN=system:node:node$i" "IP:${UNDERLAY4}1$i,IP:${UNDERLAY6}1$i,DNS:node$i"
done
