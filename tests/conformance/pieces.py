"""Keeps what parts of `make interop` found, so that a whole matrix can be put together of them."""

import json
from pathlib import Path

from tests.conformance import matrix
from tests.conformance.matrix import Judgement, Matrix
from tests.conformance.recorder import Recording
from tests.conformance.tools import TOOLS

PIECES = TOOLS / "interop"


def keep(section: str, piece: Matrix) -> None:
    """Write down how a section went, instead of what was known of it before."""
    PIECES.mkdir(parents=True, exist_ok=True)
    recordings = {
        client: {
            "requests": [[*use, count] for use, count in each.requests.items()],
            "unanswered": each.unanswered,
        }
        for client, each in piece.recordings.items()
    }
    known = {
        "broker": piece.broker,
        "advertised": [[key, *bounds] for key, bounds in piece.advertised.items()],
        "recordings": recordings,
        "judgements": [[each.client, each.step, each.failure] for each in piece.judgements],
    }
    _path(section).write_text(json.dumps(known))


def assembled(sections: list[str]) -> Matrix:
    """Return all sections as one run. Raises FileNotFoundError: one was never run."""
    whole: Matrix | None = None
    for section in sections:
        known = json.loads(_path(section).read_text())
        advertised = {key: (low, high) for key, low, high in known["advertised"]}
        whole = whole or Matrix(known["broker"], advertised, {}, [])
        whole.judgements.extend(Judgement(*row) for row in known["judgements"])
        for client, row in known["recordings"].items():
            requests = {(key, version): count for key, version, count in row["requests"]}
            unanswered = [(key, version) for key, version in row["unanswered"]]
            earlier = whole.recordings.get(client, Recording({}, []))
            whole.recordings[client] = matrix.merge(earlier, Recording(requests, unanswered))
    assert whole is not None
    return whole


def _path(section: str) -> Path:
    return PIECES / f"{section}.json"
