"""What the tests of a project that uses this package need: a local engine, settings, a clock, fixtures.

The fixtures are a pytest plugin, there as soon as the package is installed: see `plugin`.
"""

from ragcrawl_dynamo.testing.clock import ManualClock
from ragcrawl_dynamo.testing.engines import local_dynamodb, run_dynamodb_local, run_moto
from ragcrawl_dynamo.testing.settings import drop_tables, local_config

__all__ = ["ManualClock", "drop_tables", "local_config", "local_dynamodb", "run_dynamodb_local", "run_moto"]
