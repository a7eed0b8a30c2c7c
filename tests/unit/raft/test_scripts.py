"""Elections, replication and their edge cases as scripts that can be read; see `script.py`."""

from pathlib import Path

import pytest

from tests import datadriven
from tests.unit.raft.script import Script

SCRIPTS = sorted((Path(__file__).parent / "testdata").glob("*.txt"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script(path: Path) -> None:
    datadriven.run(path, Script().handle)
