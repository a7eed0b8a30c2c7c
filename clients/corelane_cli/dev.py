"""`corelane dev`: a broker to play with, gone without a trace when it ends."""

import shutil
import sys
import tempfile
from collections.abc import Mapping

from corelane.model.config_keys import Value
from corelane.runtime import start as runtime
from corelane.runtime.failures import StartError
from corelane.runtime.listener import port_of
from corelane.runtime.supervisor import Supervisor
from corelane_cli.start import load, say

LINES = """\
corelane dev: a throw-away broker on {address}; Ctrl-C ends it and removes its data ({path}).

  corelane topic create greetings --bootstrap {address}

  echo hello | kcat -b {address} -t greetings -P
  kcat -b {address} -t greetings -C -e

  # pip install confluent-kafka
  from confluent_kafka import Producer
  producer = Producer({{"bootstrap.servers": "{address}"}})
  producer.produce("greetings", b"hello")
  producer.flush()

Health and metrics: http://{admin}/health http://{admin}/metrics
"""


def dev(overrides: Mapping[str, Value], error_format: str = "text") -> int:
    """Run a node on a throw-away directory until it is stopped and return the exit code.

    Every port is free unless *overrides* name one.
    """
    path = tempfile.mkdtemp(prefix="corelane-dev-")
    settings: dict[str, Value] = {
        "corelane.port": 0,
        "group.initial.rebalance.delay.ms": 0,  # tests wait for their first record
        **overrides,
        "corelane.data.dir": path,
    }
    try:
        return runtime.serve(load(None, settings), announce=_print_lines)
    except StartError as error:
        return say(error, error_format)
    except KeyboardInterrupt:
        return 130  # Before the node listened to signals.
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _print_lines(supervisor: Supervisor) -> None:
    sockets = supervisor.plan.sockets
    lines = LINES.format(
        address=f"{sockets.host}:{sockets.listeners[0].ports().bootstrap}",
        admin=f"{sockets.host}:{port_of(sockets.admin)}",
        path=supervisor.plan.directory.path,
    )
    sys.stdout.write(lines)
    sys.stdout.flush()
