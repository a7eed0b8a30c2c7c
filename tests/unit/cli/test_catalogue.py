"""Every error a broker of this project gives has a cause and a next step, in code and README."""

import re
from pathlib import Path

import corelane
from corelane.model.errors import ErrorCode
from corelane_cli import catalogue

README = (Path(catalogue.__file__).parent / "README.md").read_text()
BROKER = Path(corelane.__file__).parent


def test_every_error_of_the_broker_is_in_the_catalogue() -> None:
    given = {
        name
        for path in BROKER.rglob("*.py")
        if path.name != "errors.py"
        for name in re.findall(r"\bErrorCode\.([A-Z_]+)", path.read_text())
    }
    assert len(given) > 20
    assert given - {"NONE"} <= catalogue.BY_NAME.keys()


def test_the_catalogue_has_kafkas_names() -> None:
    assert catalogue.BY_NAME.keys() <= ErrorCode.__members__.keys()


def test_the_readme_shows_the_catalogue() -> None:
    assert f"\n{catalogue.table()}\n" in README


def test_causes_are_phrases_and_next_steps_are_sentences() -> None:
    for advice in catalogue.CATALOGUE:
        assert not advice.cause.endswith(".")
        assert advice.cause[0].islower()
        assert advice.next_step.endswith(".")
        assert advice.next_step[0].isupper()


def test_an_error_nobody_wrote_about_has_no_next_step() -> None:
    assert catalogue.next_step("ERROR_9999") == ""
