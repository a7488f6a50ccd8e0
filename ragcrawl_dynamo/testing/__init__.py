"""Helps to test projects that use this package: local engines, settings, a clock and pytest fixtures.

The fixtures are in a pytest plugin, which pytest loads as soon as the package is installed: see `plugin`.
"""

from ragcrawl_dynamo.testing.clock import ManualClock
from ragcrawl_dynamo.testing.engines import local_dynamodb, run_dynamodb_local, run_moto
from ragcrawl_dynamo.testing.settings import drop_tables, local_config

__all__ = ["ManualClock", "drop_tables", "local_config", "local_dynamodb", "run_dynamodb_local", "run_moto"]
