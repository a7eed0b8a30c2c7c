"""What `corelane produce` does."""

import sys
import time
from collections.abc import Callable
from typing import Final

import click

from corelane.wire.records import NO_PRODUCER, Origin, Record
from corelane_cli import exits
from corelane_cli.exits import CommandError
from corelane_cli.input_format import InputFormat
from corelane_cli.input_source import InputError
from corelane_cli.interruption import blocking
from corelane_cli.layout import FormatError
from corelane_cli.output import counted, show_json
from corelane_cli.produce_input import messages
from corelane_cli.produce_wish import Wish
from corelane_cli.session import CONNECTION, DELIVERY_TIMEOUT_MS, run
from corelane_cli.template import CODECS, Part, compile_template
from corelane_client.batching import Delivery, Message, Outcome
from corelane_client.errors import ClientError
from corelane_client.producer import Producer
from corelane_client.settings import ProducerSettings

_NO_EPOCH: Final = -1


class Tally:
    """What became of the records."""

    def __init__(self) -> None:
        self.records = 0
        self.value_bytes = 0
        self.failure: ClientError | InputError | None = None
        self.partitions: dict[tuple[str, int], list[int]] = {}
        """First offset, last offset and number of records, by topic and partition."""

    def count(self, outcome: Outcome) -> None:
        """Take note of one record; the first failure is kept."""
        if isinstance(outcome, Delivery):
            self.records += 1
            place = (outcome.topic, outcome.partition)
            row = self.partitions.setdefault(place, [outcome.offset, -1, 0])
            row[0] = min(row[0], outcome.offset)
            row[1] = max(row[1], outcome.offset)
            row[2] += 1
        elif self.failure is None:
            self.failure = outcome

    def forget(self) -> None:
        """Nothing of it counts."""
        self.records = 0
        self.partitions.clear()


def run_produce(wish: Wish) -> None:
    """Send what *wish* says and print where it is."""
    start_s = time.monotonic()
    tally = Tally()
    form, printed = _compiled(wish)
    try:
        run(lambda: _produce(wish, tally, form, printed))
    except CommandError:
        if tally.records:
            _print(wish, tally, time.monotonic() - start_s)
        raise
    _print(wish, tally, time.monotonic() - start_s)


def _compiled(wish: Wish) -> tuple[InputFormat | None, Part | None]:
    """Return what reads the input and what prints each record, if that was asked for."""
    name = "--template"
    try:
        form = None if wish.template is None else InputFormat(wish.template)
        name = "--output-template"
        printed = None if wish.output_template is None else compile_template(wish.output_template)
    except FormatError as error:
        raise click.UsageError(f"{name}: {error}") from error
    if wish.topic is None and (form is None or not form.has_topic):
        raise click.UsageError("Missing argument 'TOPIC'; only a --template with %t can name it.")
    return form, printed


async def _produce(
    wish: Wish, tally: Tally, form: InputFormat | None, printed: Part | None
) -> None:
    settings = ProducerSettings(
        acks=wish.acks,
        compression=wish.compression,
        create_topics=wish.create,
        delivery_timeout_ms=DELIVERY_TIMEOUT_MS,
        transactional_id=wish.transactional_id,
        connection=CONNECTION,
    )
    async with Producer(wish.bootstrap, settings) as producer:
        if wish.transactional_id is None:
            await _send(producer, wish, tally, form, printed)
        else:
            try:
                async with producer.transaction():
                    await _send(producer, wish, tally, form, printed)
            except BaseException:
                tally.forget()  # what was acknowledged is aborted
                raise


async def _send(
    producer: Producer, wish: Wish, tally: Tally, form: InputFormat | None, printed: Part | None
) -> None:
    """Send the input until its end or the first failure. Raises CommandError, ClientError."""
    with messages(wish, form) as (source, progress):
        try:
            async for message, read_bytes in source:
                tally.value_bytes += len(message.value or b"")
                told = tally.count if printed is None else _told(wish, tally, message, printed)
                await producer.enqueue(message, told)
                if tally.failure is not None:
                    break
                progress.show(read_bytes, tally.records)
        except InputError as error:
            # What came before is whole, and is sent.
            tally.failure = tally.failure or error
        await producer.flush()
    match tally.failure:
        case None:
            pass
        case InputError():
            next_step = "Correct the input or --template; the records before it were sent."
            if wish.transactional_id is not None:
                next_step = "Correct the input or --template; the transaction was aborted."
            raise CommandError(exits.FAILED, str(tally.failure), next_step)
        case _:
            raise tally.failure


def _told(wish: Wish, tally: Tally, message: Message, printed: Part) -> Callable[[Outcome], None]:
    """Return what prints a record once it is acknowledged."""
    origin = Origin(_NO_EPOCH, CODECS.index(wish.compression), NO_PRODUCER, _NO_EPOCH)

    def tell(outcome: Outcome) -> None:
        tally.count(outcome)
        if isinstance(outcome, Delivery):
            place = (outcome.topic, outcome.partition, outcome.offset, outcome.timestamp_ms)
            made = Record(*place, message.key, message.value, message.headers, origin)
            text = printed(made)
            with blocking():
                sys.stdout.buffer.write(text)

    return tell


def _print(wish: Wish, tally: Tally, seconds: float) -> None:
    """Print where the records are."""
    rows = sorted(tally.partitions.items())
    if wish.output_format == "json":
        partitions = [
            {
                "topic": topic,
                "partition": number,
                "first_offset": first,
                "last_offset": last,
                "records": count,
            }
            for (topic, number), (first, last, count) in rows
        ]
        show_json(
            {
                "topic": wish.topic,
                "records": tally.records,
                "value_bytes": tally.value_bytes,
                "seconds": round(seconds, 3),
                "partitions": partitions,
            }
        )
        return
    if wish.output_template is not None:
        sys.stdout.buffer.flush()
        return
    for (topic, number), (first, last, count) in rows:
        where = f"offset {first}" if first == last else f"offsets {first} to {last}"
        if first < 0:
            where = "offset not told (acks 0)"
        click.echo(f"{topic}, partition {number}: {counted(count, 'record')}, {where}")
