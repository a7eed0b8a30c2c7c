"""The rules for Python that a program can check, after TigerBeetle's tidy.zig."""

import ast
from pathlib import Path

import pytest

from tests.tidy import sources

FUNCTION_LINES_MAX = 70
PURE = ("model", "wire", "raft", "groups", "producers", "cluster", "storage", "shard", "api")
IMPURE = {"trio", "socket", "os", "time", "random", "threading", "asyncio", "subprocess"}
BLOCKING = {"broker/corelane/storage/disk.py"}  # the disk of start-up recovery, as the OS has it
NATIVE_DOOR = ("native/corelane_native", "tests/unit/native")
NATIVE_CORE = "corelane_native._core"

MODULES = [path for path in sources.PYTHON if path.suffix == ".py"]
CORE = [
    path
    for path in MODULES
    if path.is_relative_to(sources.ROOT / "broker/corelane")
    and path.relative_to(sources.ROOT / "broker/corelane").parts[0] in PURE
    and sources.name(path) not in BLOCKING
]


def imports(tree: ast.AST) -> set[str]:
    """Return the full name of every module that *tree* imports, however deep inside."""
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                found |= {alias.name for alias in node.names}
            case ast.ImportFrom(module=str(module)):
                found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
            case _:
                pass
    return found


@pytest.mark.parametrize("path", MODULES, ids=sources.name)
def test_a_module_starts_with_its_one_responsibility(path: Path) -> None:
    tree = ast.parse(path.read_text())
    docstring = ast.get_docstring(tree)
    assert docstring or not tree.body
    assert docstring is None or docstring.splitlines()[0].strip()


@pytest.mark.parametrize("path", MODULES, ids=sources.name)
def test_a_function_fits_on_one_page(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= FUNCTION_LINES_MAX, f"{node.name} has {lines} lines"


@pytest.mark.parametrize("path", CORE, ids=sources.name)
def test_the_core_has_no_clock_no_socket_no_thread_no_chance(path: Path) -> None:
    roots = {module.split(".")[0] for module in imports(ast.parse(path.read_text()))}
    assert not roots & IMPURE


@pytest.mark.parametrize("path", MODULES, ids=sources.name)
def test_only_the_door_opens_the_native_core(path: Path) -> None:
    if sources.name(path).startswith(NATIVE_DOOR):
        return
    assert NATIVE_CORE not in imports(ast.parse(path.read_text()))
