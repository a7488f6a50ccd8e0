#!/usr/bin/env bash
# make_env.sh FOLDER REQUIREMENT...: a new virtual environment with these. uv is many times faster than pip,
# which some of the crawlers take minutes of; where it can not reach the index, pip does it.
set -euo pipefail
folder=$1
shift
"${PYTHON:-python3}" -m venv --clear "$folder"
if ! { "$folder/bin/pip" install --quiet uv && "$folder/bin/uv" pip install --quiet --python "$folder/bin/python" "$@"; }; then
    "$folder/bin/pip" install --quiet --no-compile "$@"
fi
