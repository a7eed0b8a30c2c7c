"""Draws the figures of a run as bars, one picture per figure, in SVG and without a library.

Each experiment is a group with one bar per broker: the median, with a line from the least to the
most. Groups have scales of their own, since a microsecond and a second share no axis; the numbers
stand beside the bars.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape

from bench.macro import measure

PLOTTED: Final = {
    "MB/s": "throughput",
    "CPU s/GB": "cpu-per-gb",
    "CPU us/request": "cpu-per-request",
    "requests/s": "requests",
    "p50 us": "latency-p50",
    "p99 us": "latency-p99",
    "PSS MiB": "memory",
    "s to last writable": "restart",
}
COLOURS: Final = {
    "corelane": "#2a6f97",
    "kafka": "#bc6c25",
    "kafka synced": "#dda15e",
    "redis": "#9b2226",
    "nats": "#5a7d5a",
}
_OTHER: Final = "#777777"
_LEFT, _WIDTH, _BAR, _GAP, _HEAD = 260, 420, 16, 14, 44


def draw(samples: Sequence[dict[str, Any]], directory: Path, prefix: str) -> list[Path]:
    """Write a picture for each figure that *samples* have; return the paths."""
    written: list[Path] = []
    for figure, name in PLOTTED.items():
        groups = _groups(samples, figure)
        if groups:
            path = directory / f"{prefix}-{name}.svg"
            path.write_text(_picture(figure, groups))
            written.append(path)
    return written


Groups = dict[str, dict[str, list[float]]]
"""Experiment, broker, values."""


def _groups(samples: Sequence[dict[str, Any]], figure: str) -> Groups:
    found: Groups = {}
    for each in samples:
        if figure in each["metrics"]:
            group = found.setdefault(each["experiment"], {})
            group.setdefault(each["broker"], []).append(each["metrics"][figure])
    return found


def _picture(figure: str, groups: Groups) -> str:
    lines: list[str] = []
    y = _HEAD
    for experiment, brokers in groups.items():
        middle = y + len(brokers) * _BAR / 2 + 5
        lines.append(
            f'<text x="{_LEFT - 12}" y="{middle:.0f}" class="n">{escape(experiment)}</text>'
        )
        most = max(max(values) for values in brokers.values()) or 1.0
        for broker, values in brokers.items():
            lines += _bar(y, (broker, values), most)
            y += _BAR
        y += _GAP
    legend = " · ".join(dict.fromkeys(b for brokers in groups.values() for b in brokers))
    width = _LEFT + _WIDTH + 150
    style = (
        "text{font:13px sans-serif;fill:#222}.n{text-anchor:end}.t{font-weight:bold;font-size:15px}"
    )
    head = f'<text x="12" y="24" class="t">{escape(figure)}: {escape(legend)}</text>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y}">'
        f'<style>{style}</style><rect width="{width}" height="{y}" fill="#ffffff"/>'
        + head
        + "".join(lines)
        + "</svg>\n"
    )


def _bar(y: float, bar: tuple[str, list[float]], most: float) -> list[str]:
    broker, values = bar
    middle = measure.median(values)
    scale = _WIDTH / most
    colour = COLOURS.get(broker, _OTHER)
    x, centre = _LEFT, y + _BAR / 2 - 1
    low, high = (x + value * scale for value in (min(values), max(values)))
    return [
        f'<rect x="{x}" y="{y}" width="{middle * scale:.1f}" height="{_BAR - 2}" fill="{colour}"/>',
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{centre}" y2="{centre}" stroke="#222222"/>',
        f'<text x="{high + 6:.1f}" y="{y + 12}">{middle:,.4g} {escape(broker)}</text>',
    ]
