#!/usr/bin/env bash
# check_wheel.sh [WHEEL]: installs a wheel without extras into an empty environment, and tests it there. Without
# WHEEL it builds one.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

python3 -m venv "$folder/env"
if [ $# = 0 ]; then
    "$folder/env/bin/pip" wheel --quiet --no-deps --wheel-dir "$folder" .
    set -- "$folder"/*.whl
fi
"$folder/env/bin/pip" install --quiet --constraint constraints.txt "$1"
cd "$folder"
env/bin/python - <<'PYTHON'
import sys
from importlib.metadata import version

import ragcrawl_dynamo

optional = {"typer", "rich", "pyarrow", "moto", "opentelemetry", "fastapi", "pytest", "scrapy", "crawlee", "ragcrawl"}
assert not (loaded := optional & set(sys.modules)), loaded
assert version("ragcrawl-dynamo") == ragcrawl_dynamo.__version__
ragcrawl_dynamo.create_storage_backend()
# pydantic takes the descriptions of fields from the source.
assert ragcrawl_dynamo.Page.model_fields["url"].description
print("ragcrawl_dynamo", ragcrawl_dynamo.__version__, "needs none of", ", ".join(sorted(optional)))
PYTHON
if env/bin/ragcrawl-dynamo --help 2>error; then
    echo "the command ran without its extra: it must ask for ragcrawl-dynamo[cli]"
    exit 1
fi
grep "ragcrawl-dynamo\[cli\]" error
