"""docs/architecture.md lists the modules as they are."""

import importlib.util
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()


@pytest.fixture(scope="module")
def rooms() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rooms", ROOT / "tools" / "rooms.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_architecture_lists_the_modules_as_they_are(rooms: ModuleType) -> None:
    assert rooms.written(PAGE) == PAGE, "run: python tools/rooms.py"


def test_architecture_knows_every_room(rooms: ModuleType) -> None:
    folders = {path.parent.name for path in (ROOT / "ragcrawl_dynamo").glob("*/__init__.py")}
    assert set(rooms.ROOMS) == folders


def test_architecture_has_the_order_of_imports_that_import_linter_checks() -> None:
    (contract,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert "\n\n" + "".join(f"    {layer}\n" for layer in contract["layers"]) + "\n" in PAGE
