"""Figures of ours beside Kafka's: the median of the turns of each, for the eye and as a page."""

import statistics

Found = dict[str, dict[str, list[float]]]
"""By broker, "corelane" and "kafka", and by what was measured: a figure of each turn."""


def tell(found: Found, digits: int) -> None:
    """Print a line for each figure."""
    for what, ours, theirs in _medians(found):
        sides = f"corelane {ours:9.{digits}f}   kafka {theirs:9.{digits}f}"
        print(f"{what:45} {sides}   ratio {ours / theirs:.2f}", flush=True)


def page(introduction: list[str], found: Found, digits: int, unit: str = "") -> str:
    """Return the page: a heading with its sentences, then a row for each figure."""
    lines = [
        *introduction,
        "",
        f"| | Corelane{unit} | Kafka{unit} | ratio |",
        "| --- | ---: | ---: | ---: |",
        *(
            f"| {what} | {ours:,.{digits}f} | {theirs:,.{digits}f} | {ours / theirs:.2f} |"
            for what, ours, theirs in _medians(found)
        ),
    ]
    return "\n".join(lines) + "\n"


def _medians(found: Found) -> list[tuple[str, float, float]]:
    return [
        (what, statistics.median(rows), statistics.median(found["kafka"][what]))
        for what, rows in found["corelane"].items()
    ]
