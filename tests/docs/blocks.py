"""Blocks of Python in Markdown, run as a reader would run them."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path
from uuid import uuid4

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


async def run_block(code: str, endpoint: str, folder: Path) -> str:
    """Its output, against a local engine, though it is written for AWS; fails where it does."""
    # Some libraries read the source of what they run.
    file = folder / "block.py"
    file.write_text(code)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error::RuntimeWarning", str(file)),
        env={
            **os.environ,
            "AWS_ENDPOINT_URL_DYNAMODB": endpoint,
            # DynamoDB Local has a database for each key.
            "AWS_ACCESS_KEY_ID": f"docs{uuid4().hex[:12]}",
            "AWS_SECRET_ACCESS_KEY": "local",
        },
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    assert b"Traceback" not in errors, errors.decode()
    return output.decode()
