"""The stress of the frontier's queue, a short one: `make stress-frontier` is the whole."""

import asyncio
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


async def test_frontier_stress_with_killed_workers_loses_nothing_and_keeps_host_limits() -> None:
    process = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-m",
            "benchmarks.stress_frontier",
            "--links",
            "700",
            "--seed",
            "11",
            "--limit",
            "150",
        ),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await process.communicate())[0].decode()
    assert process.returncode == 0, output

    def figure(name: str) -> int:
        match = re.search(rf"│ {name} +│ ([\d,]+)", output)
        assert match is not None, output
        return int(match[1].replace(",", ""))

    assert figure("violations") == 0
    assert figure("completed") == 700
    # It was a stress: workers died with leases, and hosts had limits to keep.
    assert figure("workers killed") >= 3
    assert figure("leases of killed workers") >= 1
    assert figure("delays kept") >= 10
