"""A store that was opened before a fork, with real processes and connections."""

from __future__ import annotations

import json
from pathlib import Path

from ragcrawl_dynamo import DynamoDBConfig
from ragcrawl_dynamo.testing import drop_tables
from tests.support import forking, processes


async def test_fork_child_is_refused_and_the_parent_reads_on(
    dynamodb_config: DynamoDBConfig, tmp_path: Path
) -> None:
    report = tmp_path / "report"
    assert await processes.ended(processes.start(forking.fork, dynamodb_config, report)) == 0
    child = json.loads(report.with_suffix(".child").read_text())
    assert child["raised"] == dict.fromkeys(child["raised"], "WrongProcessError")
    assert child["raised"].keys() > forking.CALLS.keys()
    # The connections are the parent's, and stay open; the child's own store works.
    assert (child["close"], child["read"]) == (None, 0)
    assert json.loads(report.read_text()) == {"wrong": 0, "retries": 0}
    await drop_tables(dynamodb_config)
