#!/usr/bin/env bash
# fetch_sdist.sh PIP REQUIREMENT FOLDER: unpacks the source archive of a package of PyPI, with its tests, into FOLDER.
set -euo pipefail
pip=$1 requirement=$2 folder=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$pip" download --quiet --no-deps --no-binary :all: --dest "$work" "$requirement"
rm -rf "$folder"
mkdir -p "$folder"
tar xzf "$work"/*.tar.gz -C "$folder" --strip-components 1
