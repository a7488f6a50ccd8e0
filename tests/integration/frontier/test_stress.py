"""The stress of the frontier's queue, a short one: `make stress-frontier` is the whole."""

import re
import sys
from pathlib import Path

import pytest

from tests.support.processes import run_command

ROOT = Path(__file__).parents[3]
LINKS = 900


@pytest.mark.long
async def test_frontier_stress_with_killed_workers_loses_nothing_and_keeps_host_limits() -> None:
    code, output, errors = await run_command(
        *(sys.executable, "-m", "benchmarks.stress_frontier"),
        *("--links", f"{LINKS}", "--kill-every", "0.7", "--seed", "11", "--limit", "150"),
        cwd=ROOT,
    )
    assert code == 0, output + errors

    def figure(name: str) -> int:
        match = re.search(rf"│ {name} +│ ([\d,]+)", output)
        assert match is not None, output
        return int(match[1].replace(",", ""))

    assert figure("violations") == 0
    assert figure("completed") == LINKS
    # It was a stress: workers died with leases, and hosts had limits to keep.
    assert figure("workers killed") >= 3
    assert figure("leases of killed workers") >= 1
    assert figure("delays kept") >= 10
