#!/bin/sh
# sign.sh OUT COMMENT: write SHA256SUMS of the files of a release (weft-* and weft_*) in the folder OUT, and sign it with minisign
# (Ed25519 over BLAKE2b): SHA256SUMS.minisig. The signature contains COMMENT, which minisign shows.
#
# The key is the file WEFT_SIGN_KEY, which may have a password. Its public key must be deploy/weft.pub (or the file WEFT_SIGN_PUB), by
# which users verify. Without WEFT_SIGN_KEY the release is a test: the key is made here and thrown away, and its public key is
# SHA256SUMS.test.pub.
set -eu
[ $# = 2 ] || { echo "usage: sign.sh OUT COMMENT" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
out=$(cd "$1" && pwd)
comment=$2
minisign=$here/../bin/tools/minisign
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
umask 022

mkdir -p "$here/../bin/tools"
(unset GOOS GOARCH GOFLAGS; CGO_ENABLED=0 go -C "$here/../internal/tools" build -trimpath -buildvcs=false -o "$minisign" aead.dev/minisign/cmd/minisign)

cd "$out"
rm -f SHA256SUMS SHA256SUMS.minisig SHA256SUMS.test.pub
LC_ALL=C sha256sum weft[-_]* >"$work/sums"
mv "$work/sums" SHA256SUMS

if [ -n "${WEFT_SIGN_KEY:-}" ]; then
	key=$WEFT_SIGN_KEY pub=${WEFT_SIGN_PUB:-$here/weft.pub}
	[ -f "$pub" ] || { echo "sign.sh: $pub is missing: users cannot verify without the public key of WEFT_SIGN_KEY" >&2; exit 1; }
else
	key=$work/test.key pub=$out/SHA256SUMS.test.pub
	(umask 077 && "$minisign" -G -W -s "$key" -p "$pub" >/dev/null)
	chmod 644 "$pub"
	comment="TEST, not a release: $comment"
	echo "sign.sh: WEFT_SIGN_KEY is not set: A TEST RELEASE, signed with a key that is thrown away (${pub##*/})" >&2
fi
"$minisign" -S -s "$key" -t "$comment" -x SHA256SUMS.minisig -m SHA256SUMS
# Also finds a public key that does not belong to WEFT_SIGN_KEY.
"$minisign" -V -H -Q -p "$pub" -m SHA256SUMS >&2 || { rm -f SHA256SUMS.minisig; exit 1; }
