"""Blocks of Python in Markdown, run as a reader would run them."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from uuid import uuid4

from tests.support.processes import run_command

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


async def run_block(block: str, endpoint: str, folder: Path) -> str:
    """Returns the output of a block that is written for AWS, against a local engine. Fails if it fails."""
    # Some libraries read the source of the code that they run.
    file = folder / "block.py"
    file.write_text(block)
    code, output, errors = await run_command(
        *(sys.executable, "-W", "error::RuntimeWarning", str(file)),
        env={
            **os.environ,
            "AWS_ENDPOINT_URL_DYNAMODB": endpoint,
            # DynamoDB Local has a database for each key.
            "AWS_ACCESS_KEY_ID": f"docs{uuid4().hex[:12]}",
            "AWS_SECRET_ACCESS_KEY": "local",
        },
        cwd=folder,
    )
    assert code == 0, errors
    assert "Traceback" not in errors, errors
    return output
