#!/usr/bin/env bash
# Rehearses a release: checks the tree and the version, builds the archives, and tests both. UPLOAD=yes releases.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "release: $1" >&2; exit 1; }

branch=$(git branch --show-current)
[ "$branch" = main ] || fail "the branch is '$branch': releases are made from main"
[ -z "$(git status --porcelain)" ] || fail "the tree has changes: commit them, or remove them"

version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' ragcrawl_dynamo/__init__.py)
section=$(grep -m 1 '^## ' CHANGELOG.md || true)
[[ "$section" == "## $version - "* ]] ||
    fail "__version__ is $version, but CHANGELOG.md begins with '$section': run make changelog VERSION=$version"
fragments=$(find changelog.d -name '*.*.md')
[ -z "$fragments" ] || fail "these changes are not in CHANGELOG.md: $fragments"
if tagged=$(git rev-parse --quiet --verify "v$version^{commit}"); then
    [ "$tagged" = "$(git rev-parse HEAD)" ] || fail "the tag v$version is on another commit: set a new __version__"
fi

folder=build/release
rm -rf "$folder"
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet build twine
# The wheel is built from the source archive, so that the archive is known to be complete.
"$folder/env/bin/python" -m build --outdir "$folder/dist" . > "$folder/build.log" || fail "see $folder/build.log"
"$folder/env/bin/twine" check --strict "$folder"/dist/*

bash tools/check_wheel.sh "$folder"/dist/*.whl

tar -xzf "$folder"/dist/*.tar.gz -C "$folder"
root=$PWD
(
    cd "$folder/ragcrawl_dynamo-$version"
    # Of the archive, not of the editable install.
    export PYTHONPATH=$PWD
    "$root/.venv/bin/python" -c "import ragcrawl_dynamo; assert ragcrawl_dynamo.__file__.startswith('$PWD/')"
    "$root/.venv/bin/python" -m pytest tests/unit -n 2 -q
)

tag=(git tag --annotate "v$version" --message "v$version")
push=(git push origin "v$version")
if [ "${UPLOAD:-}" = yes ]; then
    [ -n "$tagged" ] || "${tag[@]}"
    "${push[@]}"
else
    echo "$version can be released. With UPLOAD=yes, these commands run:"
    echo "    ${tag[*]}"
    echo "    ${push[*]}"
    echo "Then the workflow release.yml builds the same archives, and uploads them to PyPI."
fi
