"""Checks the shape of the package in its source. `make lint` checks the imports between its rooms."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import ragcrawl_dynamo

PACKAGE = Path(ragcrawl_dynamo.__file__).parent

MAX_PARAMETERS = 5
MAX_LINES = 400

# The contract is one class, and most of its lines are docstrings. Half of the lines of the records are the
# descriptions of their fields.
UNLIMITED = {"storage", "models"}

# The only modules that use aiobotocore itself. All other modules call a `Gateway`.
AIOBOTOCORE_USERS = {f"_dynamodb.{name}" for name in ("destination", "fast_path", "http_session", "session")}


@cache
def sources() -> dict[str, str]:
    """The text of every module, by its name without the name of the package."""
    return {
        ".".join(file.relative_to(PACKAGE).with_suffix("").parts): file.read_text(encoding="utf-8")
        for file in sorted(PACKAGE.rglob("*.py"))
    }


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(sources()[module])


def constructors(node: ast.AST, scope: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """Every `__init__` that is written out, nested classes included, with the name of its class."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef) and child.name == "__init__":
            yield scope, child
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from constructors(child, f"{scope}.{child.name}")
        else:
            yield from constructors(child, scope)


def parameters(function: ast.FunctionDef) -> list[str]:
    """The names of all parameters except `self`; `*args` and `**kwargs` are one each."""
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    # With `def __init__(*args)`, `self` is one of `args`.
    named = [*positional[1:], *arguments.kwonlyargs]
    variable = [argument for argument in (arguments.vararg, arguments.kwarg) if argument is not None]
    return [argument.arg for argument in [*named, *variable]]


def functions(class_: ast.ClassDef) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    return {
        node.name: node for node in class_.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def decorators(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    return {ast.unparse(decorator) for decorator in function.decorator_list}


def imported_packages(module: str) -> set[str]:
    """The top-level packages that a module imports, wherever in the module."""
    packages = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            packages |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            packages.add(node.module.partition(".")[0])
    return packages


def importers(package: str) -> set[str]:
    return {module for module in sources() if package in imported_packages(module)}


def test_parameters_counts_every_kind_once() -> None:
    code = "def __init__(self, a, /, b, c=1, *d, e, f=2, **g): ..."
    (function,) = ast.parse(code).body
    assert isinstance(function, ast.FunctionDef)
    assert sorted(parameters(function)) == ["a", "b", "c", "d", "e", "f", "g"]


def test_constructors_finds_decorated_and_nested_ones() -> None:
    code = """
class A:
    class B:
        @decorated
        def __init__(self, x): ...
    if True:
        def __init__(self): ...
def f():
    class C:
        def __init__(self): ...
"""
    assert sorted(scope for scope, _ in constructors(ast.parse(code))) == [".A", ".A.B", ".f.C"]


def test_no_constructor_has_more_than_five_parameters() -> None:
    long = {
        f"{module}{scope}": parameters(constructor)
        for module in sources()
        for scope, constructor in constructors(tree(module))
        if len(parameters(constructor)) > MAX_PARAMETERS
    }
    assert long == {}, long


def test_no_module_has_more_than_400_lines() -> None:
    lines = {module: len(source.splitlines()) for module, source in sources().items()}
    assert lines.keys() >= UNLIMITED
    long = {module: count for module, count in lines.items() if count > MAX_LINES}
    assert long.keys() - UNLIMITED == set(), long


def test_backend_overrides_the_contract_without_docstrings() -> None:
    (contract,) = [
        node
        for node in tree("storage").body
        if isinstance(node, ast.ClassDef) and node.name == "StorageBackend"
    ]
    (backend,) = [
        node
        for node in tree("backend").body
        if isinstance(node, ast.ClassDef) and "StorageBackend" in map(ast.unparse, node.bases)
    ]
    promised = functions(contract)
    overrides = {name: method for name, method in functions(backend).items() if name in promised}
    abstract = {name for name, method in promised.items() if "abstractmethod" in decorators(method)}
    assert abstract <= overrides.keys()
    assert [name for name, method in overrides.items() if "override" not in decorators(method)] == []
    assert [name for name, method in overrides.items() if ast.get_docstring(method) is not None] == []
    # The docstrings are in the contract only, on every method.
    assert [name for name, method in promised.items() if ast.get_docstring(method) is None] == []


def test_only_the_client_modules_import_an_aws_client() -> None:
    users = {"_dynamodb.client", "_dynamodb.session"}
    assert {module for module, source in sources().items() if "aioboto3" in source} == users
    assert importers("aioboto3") == users
    assert importers("boto3") == set()
    assert importers("aiobotocore") == AIOBOTOCORE_USERS
    assert {module.partition(".")[0] for module in importers("botocore")} == {"_dynamodb"}
