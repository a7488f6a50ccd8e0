"""The soak on a simulated AWS, a short one: `make soak-aws` is the whole."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.support.processes import run_command

pytestmark = pytest.mark.aws

ROOT = Path(__file__).parents[2]
LINKS = 200


@pytest.mark.long
async def test_soak_with_killed_and_frozen_workers_loses_and_misses_nothing() -> None:
    options = "--short --minutes 0.5 --seed 7 --lag 2 --processes 3 --kill-every 3 --freeze-every 4"
    command = (sys.executable, "-m", "benchmarks.soak_aws", "--links", f"{LINKS}", *options.split())
    code, output, errors = await run_command(*command, cwd=ROOT)
    assert code == 0, output + errors

    def figure(name: str) -> int:
        match = re.search(rf"│ {name} +│ ([\d,]+)", output)
        assert match is not None, output
        return int(match[1].replace(",", ""))

    assert figure("completed") == LINKS
    # It was a bad day.
    assert figure("workers killed") >= 2
    assert figure("workers frozen") >= 1
    assert figure("ThrottlingError") >= 1
    assert figure("errors_after") >= 1
