"""The tests of a framework run where it is installed. `make test-integrations` makes the environment."""

import os
from importlib.util import find_spec

from tests.support.tables import dynamodb_backend, dynamodb_config

__all__ = ["dynamodb_backend", "dynamodb_config"]

PACKAGES = {"langchain": "langchain_core", "llama_index": "llama_index", "haystack": "haystack"}

collect_ignore = [folder for folder, package in PACKAGES.items() if find_spec(package) is None]
if len(collect_ignore) == len(PACKAGES):
    collect_ignore += ["test_docs.py", "test_options.py"]

# Otherwise it reports each pipeline to its makers.
os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"
