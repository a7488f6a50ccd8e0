#!/usr/bin/env bash
# fetch_ragcrawl_tests.sh FOLDER PIP: downloads the source archive of ragcrawl, which has its tests, into FOLDER,
# unless it is there.
set -euo pipefail
home=${1:?usage: fetch_ragcrawl_tests.sh FOLDER PIP}
pip=${2:?usage: fetch_ragcrawl_tests.sh FOLDER PIP}
version=0.0.2
sha256_of_archive=c774e356166b635df58e13f65611d7b06d00d454be73c40937959d9bd805eefb

[ -d "$home/tests" ] && exit 0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "fetching the tests of ragcrawl $version into $home ..." >&2
"$pip" download --quiet --no-binary :all: --no-deps --dest "$work" "ragcrawl==$version"
archive=$work/ragcrawl-$version.tar.gz
sha256=$(sha256sum "$archive" | cut -d' ' -f1)
[ "$sha256" = "$sha256_of_archive" ] || { echo "$archive has SHA-256 $sha256, not $sha256_of_archive" >&2; exit 1; }
tar xzf "$archive" -C "$work"
rm -rf "$home"
mv "$work/ragcrawl-$version" "$home"
