"""The rules for C that a program can check without understanding C."""

import re
from pathlib import Path

import pytest

from tests.tidy import sources

FUNCTION_LINES_MAX = 70
_PREPROCESSOR = re.compile(r"\s*#")


def functions(text: str) -> list[tuple[str, int]]:
    """Return (first line, number of lines) of each function definition.

    Relies on one habit: a definition starts and its last brace stands in the first column. Only
    functions end in a bare `}` there; types and tables end in `};` or a name.
    """
    found: list[tuple[str, int]] = []
    start: int | None = None
    lines = text.splitlines()
    for number, line in enumerate(lines):
        is_top_level = bool(line) and not line[0].isspace() and not _PREPROCESSOR.match(line)
        if line == "}" and start is not None:
            found.append((lines[start], number - start + 1))
            start = None
        elif is_top_level and line.rstrip().endswith(";"):
            start = None
        elif is_top_level and start is None and line[0] not in "{}/*":
            start = number
    return found


@pytest.mark.parametrize("path", sources.C, ids=sources.name)
def test_a_c_function_fits_on_one_page(path: Path) -> None:
    for head, lines in functions(path.read_text()):
        assert lines <= FUNCTION_LINES_MAX, f"{head!r} has {lines} lines"


@pytest.mark.parametrize("path", sources.C, ids=sources.name)
def test_a_c_file_starts_with_its_one_responsibility(path: Path) -> None:
    assert path.read_text().startswith("/*")


def test_the_measure_of_functions_sees_functions() -> None:
    text = "struct a {\n    int b;\n};\n\nstatic int\nf(void)\n{\n    return 1;\n}\n\n"
    text += "int g(void) {\n}\n"
    assert functions(text) == [("static int", 5), ("int g(void) {", 2)]
