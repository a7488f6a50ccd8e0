"""The program on the page about search indexes prints the output that the page shows."""

from __future__ import annotations

from pathlib import Path
from textwrap import indent

from tests.docs.blocks import BLOCK, run_block

PAGE = Path(__file__).parents[2] / "docs" / "rag.md"


async def test_program_of_a_search_index_prints_the_output_on_the_page(
    dynamodb_local_endpoint: str, tmp_path: Path
) -> None:
    text = PAGE.read_text()
    program = BLOCK.findall(text)[0]
    output = await run_block(program, dynamodb_local_endpoint, tmp_path)
    assert f"It prints:\n\n{indent(output, '    ')}\n" in text
