#!/bin/sh
# image.sh BIN REF OUT: build an image from scratch with weft's programs (in the folder BIN), nft, and the reference plugins that
# runtimes need, as an OCI archive OUT. containerd and podman import it under the name REF. Needs umoci, but no registry or daemon.
# It prints the digest of the image, and writes it to OUT.digest.
# image.sh --rootfs BIN DIR: write only the content of the image to the folder DIR, for deploy/Dockerfile.
#
# nft and its libraries are copied from this machine, so the image runs on machines of the same architecture.
set -eu

# fill BIN DIR creates the root folder of the image.
fill() {
	rm -rf "$2"
	mkdir -p "$2/usr/bin" "$2/usr/sbin" "$2/tmp" "$2/etc"
	for program in weft weft-cni weft-kube; do cp "$1/$program" "$2/usr/bin/"; done
	for plugin in main/loopback meta/portmap; do
		CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$2/usr/bin/" "github.com/containernetworking/plugins/plugins/$plugin"
	done
	nft=$(command -v nft || echo /usr/sbin/nft)
	cp "$nft" "$2/usr/sbin/nft"
	ldd "$nft" | grep -o '/[^ ]*' | while read -r lib; do
		mkdir -p "$2$(dirname "$lib")"
		cp -L "$lib" "$2$lib"
	done
}

[ $# = 3 ] || { echo "usage: image.sh BIN REF OUT, or image.sh --rootfs BIN DIR" >&2; exit 2; }
if [ "$1" = --rootfs ]; then
	fill "$2" "$3"
	exit
fi

bin=$1 ref=$2 out=$3
root=$bin/image
rm -rf "$root" "$out" "$out.digest"
mkdir -p "$root"
fill "$bin" "$root/rootfs"

umoci init --layout "$root/oci"
umoci new --image "$root/oci:latest"
umoci insert --image "$root/oci:latest" --rootless "$root/rootfs" /
umoci config --image "$root/oci:latest" --config.entrypoint /usr/bin/weft --config.env PATH=/usr/bin:/usr/sbin
umoci gc --layout "$root/oci"
# Runtimes read the name of the image from an annotation.
sed -i "s|\"org.opencontainers.image.ref.name\":\"latest\"|\"org.opencontainers.image.ref.name\":\"${ref##*:}\",\"io.containerd.image.name\":\"$ref\"|" "$root/oci/index.json"
tar -C "$root/oci" -cf "$out" .
digest=$(sed -n 's/.*"manifests":\[{[^]]*"digest":"\(sha256:[0-9a-f]*\)".*/\1/p' "$root/oci/index.json")
[ -n "$digest" ] || { echo "image.sh: no digest in index.json" >&2; exit 1; }
echo "${ref%:*}@$digest" >"$out.digest"
rm -rf "$root"
echo "$out: $ref, $(du -h "$out" | cut -f1), ${ref%:*}@$digest"
