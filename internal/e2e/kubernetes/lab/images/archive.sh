#!/bin/bash
# archive.sh REF ROOT OUT ENTRYPOINT CMD: writes an OCI archive OUT of an image with the content of the folder ROOT. containerd imports it
# under the name REF. ENTRYPOINT and CMD are one word each, or empty.
set -euo pipefail
ref=$1 root=$2 out=$3 entrypoint=$4 cmd=$5
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
umoci init --layout "$work/oci"
umoci new --image "$work/oci:latest"
umoci insert --image "$work/oci:latest" --rootless "$root" /
umoci config --image "$work/oci:latest" --config.env PATH=/usr/bin:/bin:/sbin:/usr/sbin \
	${entrypoint:+--config.entrypoint "$entrypoint"} ${cmd:+--config.cmd "$cmd"}
umoci gc --layout "$work/oci"
# containerd reads the name of the image from an annotation.
sed -i "s|\"org.opencontainers.image.ref.name\":\"latest\"|&,\"io.containerd.image.name\":\"$ref\"|" "$work/oci/index.json"
tar -C "$work/oci" -cf "$out" .
