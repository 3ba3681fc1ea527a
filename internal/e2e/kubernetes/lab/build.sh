#!/bin/bash
# Builds the programs of the lab from the Go modules in programs/, and the images of its pods.
# A program is built again if its module or the flags have changed.
set -euo pipefail
. "$LAB/settings.sh"
mkdir -p "$PROGRAMS" "$IMAGES"
export CGO_ENABLED=0

# required MODULE DEPENDENCY prints the version of a dependency.
required() { awk -v name="$2" '$1 == name {print $2; exit} $2 == name {print $3; exit}' "$LAB/programs/$1/go.mod"; }

# build NAME MODULE PACKAGE [-test] [FLAG…] builds one program.
build() {
	local name=$1 module=$2 package=$3 command=(go build)
	shift 3
	if [ "${1:-}" = -test ]; then
		command=(go test -c)
		shift
	fi
	local stamp
	stamp=$(cat "$LAB/programs/$module"/* | sha256sum; echo "$package $*")
	if [ -s "$PROGRAMS/$name" ] && [ "$(cat "$PROGRAMS/$name.stamp" 2>/dev/null)" = "$stamp" ]; then
		return
	fi
	echo "building $name"
	(cd "$LAB/programs/$module" && "${command[@]}" -trimpath "$@" -o "$PROGRAMS/$name.new" "$package")
	mv "$PROGRAMS/$name.new" "$PROGRAMS/$name"
	echo "$stamp" >"$PROGRAMS/$name.stamp"
}

version=$(required kubernetes k8s.io/kubernetes)
minor=${version#v1.} minor=${minor%%.*}
server=k8s.io/component-base/version client=k8s.io/client-go/pkg/version
for name in kubelet kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubectl; do
	build $name kubernetes k8s.io/kubernetes/cmd/$name -ldflags \
		"-s -w -X $server.gitVersion=$version -X $server.gitMajor=1 -X $server.gitMinor=$minor -X $client.gitVersion=$version"
done
build net-e2e.test e2e . -test -ldflags "-s -w -X $server.gitVersion=$version"
build agnhost agnhost k8s.io/kubernetes/test/images/agnhost -ldflags '-s -w'
build coredns coredns . -ldflags '-s -w'
build pause pause . -ldflags '-s -w'
build helm helm helm.sh/helm/v4/cmd/helm -ldflags '-s -w'
containerd=$(required containerd github.com/containerd/containerd/v2)
for name in containerd containerd-shim-runc-v2 ctr; do
	build $name containerd github.com/containerd/containerd/v2/cmd/$name -tags 'no_btrfs no_devmapper no_zfs' \
		-ldflags "-s -w -X github.com/containerd/containerd/v2/version.Version=${containerd#v}"
done

"$LAB/images/build.sh"
