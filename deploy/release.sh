#!/bin/sh
# release.sh OUT [ARCH...]: build the files of a release for each ARCH (default: amd64 arm64) in the folder OUT:
#
#   weft-VERSION-linux-ARCH.tar.gz   programs, manual, completions, unit, documents
#   weft_VERSION_ARCH.deb, weft-VERSION-1.ARCH.rpm
#   weft-VERSION.cdx.json            all modules in the programs, with their licenses (CycloneDX)
#   weft-VERSION-image-ARCH.tar      the image WEFT_RELEASE_IMAGE of "make image", if it is set, and its digest (.digest)
#   SHA256SUMS, SHA256SUMS.minisig   of all of these, and its signature by the key WEFT_SIGN_KEY (deploy/sign.sh)
#
# The same commit produces the same bytes on any machine, except for the image, which has nft of the build machine. To verify a
# release without its key, build it again and compare SHA256SUMS. The files therefore depend on nothing of the build machine: the
# time is that of the commit, the Go version that of go.mod, and paths, owners and the order of folders have no effect.
#
# WEFT_RELEASE_PARTS are the files that are built, for tests: some of "deb rpm archive sbom". With fewer than all, the default, WEFT_SIGN_KEY is
# not used.
#
# Progress goes to standard error, the content of SHA256SUMS to standard output.
#
# With WEFT_SIGN_PGP_KEY, a file with an OpenPGP key (its password in NFPM_PASSPHRASE), nfpm also signs the packages. They then
# differ from those of another build by the signature.
set -eu
cd "$(dirname "$0")/.."
[ $# -ge 1 ] || { echo "usage: release.sh OUT [ARCH...]" >&2; exit 2; }
out=$1
shift
[ $# -gt 0 ] || set -- amd64 arm64

all="deb rpm archive sbom"
: "${WEFT_RELEASE_PARTS:=$all}"
[ "$WEFT_RELEASE_PARTS" = "$all" ] || WEFT_SIGN_KEY=
say() { echo "release: $*" >&2; }
has() {
	case " $WEFT_RELEASE_PARTS " in *" $1 "*) ;; *) return 1 ;; esac
}

# Twelve digits: the length that git chooses depends on the number of commits in the clone.
version=$(git describe --tags --always --dirty --abbrev=12)
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct)}"
export SOURCE_DATE_EPOCH LC_ALL=C TZ=UTC
export CGO_ENABLED=0 GOOS=linux GOAMD64=v1 GOARM64=v8.0 GOFLAGS= GOEXPERIMENT= GOWORK=off
GOTOOLCHAIN=go$(sed -n 's/^go //p' go.mod)
export GOTOOLCHAIN
umask 022
: "${WEFT_SIGN_PGP_KEY:=}"
export WEFT_SIGN_PGP_KEY

# Versions of packages start with a digit and have no dash. v1.2.3 becomes 1.2.3; v1.2.3-rc1 sorts before it, later commits sort
# after it, and a commit without a tag sorts before all.
case $version in
v[0-9]*) PACKAGE_VERSION=$(echo "$version" | sed -E 's/^v//; s/-([0-9]+)-g([0-9a-f]+)/+\1.g\2/; s/-dirty$/.dirty/; s/-/~/g') ;;
*) PACKAGE_VERSION=0.0.0~git$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y%m%d%H%M%S).$(echo "$version" | tr - .) ;;
esac
export PACKAGE_VERSION

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"
out=$(cd "$out" && pwd)
rm -f "$out"/weft[-_]* "$out"/SHA256SUMS*

say "weft $version for $*, into $out"
mkdir -p bin/tools
say "building the tools, which takes minutes the first time"
tools=$PWD/bin/tools
go -C internal/tools build -trimpath -buildvcs=false -o "$tools/" github.com/goreleaser/nfpm/v2/cmd/nfpm

# normalize DIR: set times and modes, which depend on cp and umask.
normalize() {
	find "$1" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
	chmod -R u=rwX,go=rX "$1"
}

# Files that are the same for all architectures.
say "manual pages, completions and documents"
mkdir -p "$work/common/man" "$work/common/completions" "$work/common/systemd" "$work/common/package"
go build -trimpath -buildvcs=false -tags man -o "$work/man" ./cmd/weft
"$work/man" man "$work/common/man"
gzip -9n "$work"/common/man/*
"$work/man" completion bash >"$work/common/completions/weft.bash"
"$work/man" completion zsh >"$work/common/completions/_weft"
"$work/man" completion fish >"$work/common/completions/weft.fish"
cp deploy/systemd/weft.service deploy/systemd/weft-docker.service deploy/systemd/weft.yaml "$work/common/systemd/"
cp deploy/package/* "$work/common/package/"
# The documents with everything that they link to, at the same places.
git ls-files -z LICENSE ':(glob)*.md' docs deploy go.mod ':!:*.go' ':!:deploy/package' ':!:deploy/nfpm.yaml' | tar --null -T - -cf - | tar -C "$work/common" -xf -

for arch; do
	say "$arch: building the programs"
	stage=$work/$arch/weft-$version-linux-$arch
	mkdir -p "$stage/bin"
	cp -R "$work"/common/. "$stage/"
	GOARCH=$arch go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$version" -o "$stage/bin/" \
		./cmd/weft ./cmd/weft-cni ./cmd/weft-kube ./cmd/weft-docker ./cmd/weft-bench
	normalize "$stage"
	for format in deb rpm; do
		has $format || continue
		say "$arch: .$format"
		(cd "$stage" && ARCH=$arch "$tools/nfpm" package --config "$OLDPWD/deploy/nfpm.yaml" --packager "$format" --target "$out/" >/dev/null)
	done
	has archive || continue
	say "$arch: archive"
	rm -r "$stage/package" # scripts of the packages
	normalize "$stage"
	tar -C "$work/$arch" --sort=name --format=gnu --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" \
		-cf - "${stage##*/}" | gzip -9n >"$out/${stage##*/}.tar.gz"
done

if has sbom; then
	say "SBOM, which takes minutes"
	# In a copy without .git, from which the tool would derive another version. awk inserts the version, and removes the digest of the
	# tool itself, which differs between machines.
	go -C internal/tools build -trimpath -buildvcs=false -o "$tools/" github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod
	mkdir "$work/source"
	git ls-files -z | tar --null -T - -cf - | tar -C "$work/source" -xf -
	"$tools/cyclonedx-gomod" mod -json -noserial -notimestamp -short-purls -licenses -assert-licenses -output "$work/sbom" "$work/source" 2>"$work/log" ||
		{ cat "$work/log" >&2; exit 1; }
	awk -v version="$version" '
		/^  "components":/ { rest = 1 }
		!rest && /^        "hashes": \[/ { skip = 1 }
		!skip { print }
		skip && /^        \],/ { skip = 0 }
		!rest && /^      "name": "weft",/ { print "      \"version\": \"" version "\"," }
	' "$work/sbom" >"$out/weft-$version.cdx.json"
fi

if [ -n "${WEFT_RELEASE_IMAGE:-}" ]; then
	image=$out/weft-$version-image-$(go env GOHOSTARCH).tar
	cp "$WEFT_RELEASE_IMAGE" "$image"
	cp "$WEFT_RELEASE_IMAGE.digest" "$image.digest"
fi

say "checksums and signature"
deploy/sign.sh "$out" "weft $version"
chmod 644 "$out"/*
cat "$out/SHA256SUMS"
