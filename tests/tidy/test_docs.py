"""The documents say what is there: links lead somewhere, commands exist."""

import re
from pathlib import Path

import pytest

from tests.tidy import sources

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_MAKE = re.compile(r"\bmake ([a-z]+)")
_TARGET = re.compile(r"^([a-z]+):", re.MULTILINE)
_CODE = re.compile(r"```[^\n]*\n(.*?)```|`([^`\n]+)`", re.DOTALL)


def links(text: str) -> set[str]:
    """Return the files of this repository that *text* links to."""
    targets = {target.split("#")[0] for target in _LINK.findall(text) if "://" not in target}
    return targets - {""}


@pytest.mark.parametrize("path", sources.MARKDOWN, ids=sources.name)
def test_every_link_leads_to_a_file(path: Path) -> None:
    missing = {link for link in links(path.read_text()) if not (path.parent / link).exists()}
    assert not missing


@pytest.mark.parametrize("path", sources.MARKDOWN, ids=sources.name)
def test_every_make_command_in_the_documents_exists(path: Path) -> None:
    known = set(_TARGET.findall((sources.ROOT / "Makefile").read_text()))
    code = "\n".join(block or inline for block, inline in _CODE.findall(path.read_text()))
    assert set(_MAKE.findall(code)) <= known


@pytest.mark.parametrize("name", ["start", "test", "check", "fix", "interop", "bench"])
def test_every_make_command_is_explained(name: str) -> None:
    documents = (sources.ROOT / "README.md").read_text()
    documents += (sources.ROOT / "CONTRIBUTING.md").read_text()
    assert f"make {name}" in documents
