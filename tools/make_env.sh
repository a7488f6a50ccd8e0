#!/usr/bin/env bash
# make_env.sh FOLDER REQUIREMENT...: creates a virtual environment with these requirements. It uses uv, because
# pip takes minutes for some of the crawlers. If uv cannot reach the package index, it uses pip.
set -euo pipefail
folder=$1
shift
"${PYTHON:-python3}" -m venv --clear "$folder"
if ! { "$folder/bin/pip" install --quiet uv && "$folder/bin/uv" pip install --quiet --python "$folder/bin/python" "$@"; }; then
    "$folder/bin/pip" install --quiet --no-compile "$@"
fi
