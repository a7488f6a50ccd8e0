"""The tests of a framework run where it is installed. `make test-integrations` makes the environment."""

from importlib.util import find_spec

from tests.support.tables import dynamodb_backend, dynamodb_config

__all__ = ["dynamodb_backend", "dynamodb_config"]

PACKAGES = {"langchain": "langchain_core"}

collect_ignore = [folder for folder, package in PACKAGES.items() if find_spec(package) is None]
