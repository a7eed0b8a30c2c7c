"""Runs other people's clients and tools against a broker and writes MATRIX.md.

`make interop` starts Corelane. `ARGS="--against kafka"` starts Apache Kafka instead, which judges
these steps; `CORELANE_BOOTSTRAP=host:port` takes a broker that runs already, without recording.
All of it takes a quarter of an hour and more: `ARGS="--only kcat"` runs a part and keeps what it
finds, and `ARGS=--assemble` writes MATRIX.md of all parts.
"""

import argparse
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from importlib.metadata import version
from pathlib import Path

from corelane.model.record import record
from tests.conformance import brokers, matrix, pieces
from tests.conformance.brokers import Running
from tests.conformance.matrix import Judgement, Matrix
from tests.conformance.probe import Address, api_versions
from tests.conformance.recorder import RECORDED_HOST, Recorder, Recording, recorded
from tests.conformance.steps import (
    franz_go,
    java_frameworks,
    java_groups,
    kafka_tools,
    kafka_transactions,
    kcat,
    python_clients,
)
from tests.conformance.steps.step import Step, StepError
from tests.conformance.tools import ToolMissingError

MATRIX = Path(__file__).parent / "MATRIX.md"
SECTIONS: dict[str, Callable[[], list[Step]]] = {
    "kcat": kcat.steps,
    "kafka": kafka_tools.steps,
    "groups": java_groups.steps,
    "transactions": kafka_transactions.steps,
    "franz-go": franz_go.steps,
    "frameworks": java_frameworks.steps,
}
EVERYTHING = [*SECTIONS, *python_clients.PACKAGES]


@record
class Options:
    """What the command line asks for."""

    against: str
    only: list[str]
    is_assembled: bool
    output: Path | None


def main() -> None:
    """Run everything that was asked for; ends with status 1 if anything failed."""
    options = _options()
    if options.is_assembled:
        MATRIX.write_text(matrix.render(pieces.assembled(EVERYTHING)))
        print(f"written: {MATRIX}")
        return
    with ExitStack() as stack:
        named = brokers.environment_bootstrap()
        recorder: Recorder | None = None
        if named is not None:
            bootstrap, broker = named, str(named)
        else:
            running = stack.enter_context(_start(options.against))
            bootstrap, recorder = stack.enter_context(recorded(running.ports))
            broker = _broker_name(options.against)
        result = Matrix(broker, api_versions(bootstrap), {}, [])
        if recorder is not None:
            recorder.take()  # the probe's own question
        _run_all(options, bootstrap, recorder, result)
    if recorder is not None and options.output is not None:
        options.output.write_text(matrix.render(result))
        print(f"\nwritten: {options.output}")
    failed = [each for each in result.judgements if each.failure]
    print(f"\n{len(result.judgements) - len(failed)} passed, {len(failed)} failed")
    sys.exit(1 if failed else 0)


def _start(against: str) -> AbstractContextManager[Running]:
    if against == "kafka":
        return brokers.kafka({"advertised.host": RECORDED_HOST})
    return brokers.corelane({"corelane.advertised.host": RECORDED_HOST})


def _broker_name(against: str) -> str:
    return "Apache Kafka 4.3.1" if against == "kafka" else f"Corelane {version('corelane')}"


def _run_all(
    options: Options, bootstrap: Address, recorder: Recorder | None, result: Matrix
) -> None:
    for name in options.only:
        if name in python_clients.PACKAGES:
            client = python_clients.client_name(name)
            start_s = time.monotonic()
            outcomes = python_clients.run(name, bootstrap)
            judged = [Judgement(client, each.name, each.failure) for each in outcomes]
            _say_all(judged, time.monotonic() - start_s)
        else:
            judged = [_judge(step, bootstrap) for step in SECTIONS[name]()]
            client = judged[0].client
        result.judgements.extend(judged)
        if recorder is not None:
            found = recorder.take()
            earlier = result.recordings.get(client, Recording({}, []))
            result.recordings[client] = matrix.merge(earlier, found)
            if options.against == "corelane":
                piece = Matrix(result.broker, result.advertised, {client: found}, judged)
                pieces.keep(name, piece)


def _judge(step: Step, bootstrap: Address) -> Judgement:
    start_s = time.monotonic()
    failure = ""
    try:
        step.run(bootstrap)
    except (StepError, ToolMissingError) as error:
        failure = str(error)
    judgement = Judgement(step.client, step.name, failure)
    _say_all([judgement], time.monotonic() - start_s)
    return judgement


def _say_all(judgements: list[Judgement], took_s: float) -> None:
    for each in judgements:
        mark = matrix.BAD if each.failure else matrix.GOOD
        print(f"{mark} {each.client}: {each.step}", flush=True)
        if each.failure:
            print("    " + each.failure.strip().replace("\n", "\n    "), flush=True)
    print(f"    ({took_s:.1f} s)", flush=True)


def _options() -> Options:
    parser = argparse.ArgumentParser(prog="make interop ARGS=…", description=__doc__)
    parser.add_argument("--against", choices=["corelane", "kafka"], default="corelane")
    parser.add_argument("--only", nargs="+", choices=EVERYTHING, default=EVERYTHING)
    parser.add_argument("--output", type=Path, help="default: MATRIX.md after a whole run of ours")
    parser.add_argument("--assemble", action="store_true", help="write MATRIX.md of what is kept")
    given = parser.parse_args()
    output = given.output
    if output is None and given.against == "corelane" and given.only == EVERYTHING:
        output = MATRIX
    return Options(given.against, given.only, given.assemble, output)


if __name__ == "__main__":
    main()
