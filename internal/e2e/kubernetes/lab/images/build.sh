#!/bin/bash
# Builds the images of the lab's pods: pause, busybox, CoreDNS and agnhost, from which the upstream tests make most of their pods.
# An image is built again if it is older than its program.
set -euo pipefail
. "$LAB/settings.sh"
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

# image NAME FILE REF ENTRYPOINT CMD FUNCTION builds an image from the folder that FUNCTION fills. FILE is its program.
image() {
	local archive=$IMAGES/$1.tar
	[ "$archive" -ot "$2" ] || [ ! -s "$archive" ] || return 0
	echo "building image $1"
	rm -rf "$root/$1"
	mkdir -p "$root/$1"
	"$6" "$root/$1"
	"$LAB/images/archive.sh" "$3" "$root/$1" "$archive" "$4" "$5"
}

fill_pause() { cp "$PROGRAMS/pause" "$1/"; }
fill_coredns() { cp "$PROGRAMS/coredns" "$1/"; }
fill_busybox() {
	mkdir -p "$1"/{bin,etc,tmp,usr/bin}
	cp /bin/busybox "$1/bin/"
	for applet in $(/bin/busybox --list); do
		[ -e "$1/bin/$applet" ] || ln -s busybox "$1/bin/$applet"
	done
}
fill_agnhost() {
	fill_busybox "$1"
	"$LAB/images/agnhost.sh" "$1"
}

image pause "$PROGRAMS/pause" registry.k8s.io/pause:3.10 /pause "" fill_pause
image busybox /bin/busybox docker.io/library/busybox:1.35 "" sh fill_busybox
image coredns "$PROGRAMS/coredns" registry.k8s.io/coredns/coredns:lab /coredns "" fill_coredns
image agnhost "$PROGRAMS/agnhost" registry.k8s.io/e2e-test-images/agnhost:2.63.0 /agnhost pause fill_agnhost
