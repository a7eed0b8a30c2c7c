"""Dashboards and alerts name only what a broker shows, with the labels it has there.

Method: every family that the exporter makes is collected with its labels; every expression is taken
apart with a small scanner. promtool and Grafana judge the rest, where they are installed.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from corelane.model.metrics import METRICS
from corelane.runtime.exporter import Exporter
from corelane.runtime.scrape import Scraper
from tests.tools import dashboards
from tests.unit.runtime.fake_node import FakeCore, FakeNode

ROOT = Path(__file__).parents[3]
ALERTS = ROOT / "config/prometheus/alerts.yml"
SCRAPED = {"job", "instance"}
"""Labels that Prometheus adds."""
UP = {"up": SCRAPED}
METRIC = re.compile(r"\b(up|corelane_\w+)(?:\{([^}]*)\})?")
GROUPING = re.compile(r"\b(?:by|without)\s*\(([^)]*)\)")
MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"')


@pytest.fixture
def known(tmp_path: Path) -> dict[str, set[str]]:
    """Return the labels of every series there is, by its name."""
    found: dict[str, set[str]] = dict(UP)
    for row in METRICS:
        for suffix in ("_bucket", "_sum", "_count") if "histogram" in row.kind.value else ("",):
            found[row.name + suffix] = {*row.labels, *SCRAPED} | (
                {"le"} if suffix == "_bucket" else set()
            )
    exporter = Exporter(Scraper(FakeNode(FakeCore(0, {"partitions": 1.0}))), tmp_path, "1", 0.0)
    for line in trio.run(exporter.text).decode().splitlines():
        if line.startswith("#"):
            continue
        name, _, labels = line.rpartition(" ")[0].partition("{")
        found.setdefault(name, set(SCRAPED)).update(re.findall(r'(\w+)="', labels))
    return found


def check(expression: str, known: dict[str, set[str]]) -> None:
    """Fail where an expression asks for what there is not."""
    labels: set[str] = set()
    names = METRIC.findall(expression)
    assert names, expression
    for name, matchers in names:
        assert name in known, f"{name} in {expression}"
        for label in MATCHER.findall(matchers):
            assert label in known[name], f"{name} has no label {label}: {expression}"
        labels |= known[name]
    for grouping in GROUPING.findall(expression):
        for label in grouping.split(","):
            assert label.strip() in labels, f"nothing has a label {label}: {expression}"


def alert_expressions() -> list[str]:
    """Return the expressions of alerts.yml, whose long ones go on in the next lines."""
    text = re.sub(r"(?m)^ *#.*\n", "", ALERTS.read_text())
    found = re.findall(r"(?m)^ +expr: (?:>-\n((?: {10}.*\n)+)|(.*)\n)", text)
    return [" ".join((folded or plain).split()) for folded, plain in found]


def test_every_alert_names_what_there_is(known: dict[str, set[str]]) -> None:
    expressions = alert_expressions()
    assert len(expressions) == ALERTS.read_text().count("- alert: ") > 10
    for expression in expressions:
        check(expression, known)


def test_every_alert_says_what_and_what_to_do() -> None:
    for alert in ALERTS.read_text().split("- alert: ")[1:]:
        assert re.search(r"severity: (critical|warning|info)\b", alert), alert
        assert re.search(r'(?m)^ +summary: ".+\."$', alert), alert
        assert re.search(r'(?m)^ +description: ".+[.?]"$', alert), alert


def test_every_alert_is_tried() -> None:
    """`promtool test rules` counts in its second test how many alerts fire: all there are."""
    count = ALERTS.read_text().count("- alert: ")
    assert f"value: {count}}}" in (ALERTS.parent / "alerts_test.yml").read_text()


@pytest.mark.parametrize("name", dashboards.DASHBOARDS)
def test_the_dashboards_in_the_repository_are_the_generated_ones(name: str) -> None:
    """After a change run `python -m tests.tools.dashboards`."""
    assert (dashboards.TARGET / f"{name}.json").read_text() == dashboards.text(name)


def test_there_is_no_other_dashboard() -> None:
    files = {path.stem for path in dashboards.TARGET.iterdir()}
    assert files == set(dashboards.DASHBOARDS)


def panels() -> Iterator[dict[str, Any]]:
    for name in dashboards.DASHBOARDS:
        yield from json.loads(dashboards.text(name))["panels"]


def test_every_panel_names_what_there_is(known: dict[str, set[str]]) -> None:
    for panel in panels():
        for target in panel["targets"]:
            check(target["expr"], known)
            labels = set().union(*(known[name] for name, _ in METRIC.findall(target["expr"])))
            for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                assert label in labels, target


def test_every_panel_says_what_it_shows_in_a_unit() -> None:
    for panel in panels():
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        for target in panel["targets"]:
            assert "job" in target["expr"]
            assert "instance" in target["expr"], "of the chosen nodes only"
            assert ("rate(" not in target["expr"]) or ("$__rate_interval" in target["expr"])


def test_panels_do_not_overlap() -> None:
    for name in dashboards.DASHBOARDS:
        cells: set[tuple[int, int]] = set()
        for panel in json.loads(dashboards.text(name))["panels"]:
            grid = panel["gridPos"]
            assert grid["x"] + grid["w"] <= dashboards.COLUMNS
            own = {
                (grid["x"] + across, grid["y"] + down)
                for across in range(grid["w"])
                for down in range(grid["h"])
            }
            assert not own & cells, panel["title"]
            cells |= own


@pytest.mark.parametrize(
    "expression",
    [
        "corelane_nothing_total",
        'sum(corelane_shard_up{core="1"})',
        "sum by (topic) (corelane_shard_up)",
        "rate(corelane_fsync_duration_seconds[5m])",
    ],
)
def test_what_there_is_not_is_found_out(expression: str, known: dict[str, set[str]]) -> None:
    with pytest.raises(AssertionError):
        check(expression, known)
