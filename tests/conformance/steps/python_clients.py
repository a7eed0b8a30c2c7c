"""The Python clients, by the same tests that `make test` runs."""

import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from importlib.metadata import version
from pathlib import Path

from corelane.model.record import record
from tests.conformance import tools
from tests.conformance.probe import Address

PACKAGES = ("confluent-kafka", "kafka-python", "aiokafka")
RUN_S_MAX = 600
_PARAMETERS = re.compile(r"\[.*\]$")


@record
class Outcome:
    """How one test went; `failure` is empty when it passed."""

    name: str
    failure: str


def client_name(package: str) -> str:
    """Return a package as the matrix names it."""
    return f"{package} {version(package)}"


def run(package: str, bootstrap: Address) -> list[Outcome]:
    """Run the conformance tests of one package, and return one outcome per test function."""
    with tempfile.TemporaryDirectory(prefix="conformance-") as directory:
        report = Path(directory) / "report.xml"
        pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        subprocess.run(
            [*pytest, "tests/conformance", "-k", package, f"--junitxml={report}"],
            cwd=tools.ROOT,
            env=os.environ | {"CORELANE_BOOTSTRAP": str(bootstrap)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=RUN_S_MAX,
            check=False,
        )
        if not report.exists():
            return [Outcome("the tests start", "pytest wrote no report")]
        return _outcomes(report)


def _outcomes(report: Path) -> list[Outcome]:
    failures: dict[str, str] = {}
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 - our own pytest wrote it
        name = _PARAMETERS.sub("", case.attrib["name"])
        sentence = name.removeprefix("test_").replace("_", " ")
        failures.setdefault(sentence, "")
        for kind in ("failure", "error", "skipped"):
            found = case.find(kind)
            if found is not None:
                failures[sentence] = f"{case.attrib['name']}: {found.attrib.get('message', kind)}"
    return [Outcome(name, failure) for name, failure in failures.items()]
