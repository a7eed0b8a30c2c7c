"""What the command line of `corelane produce` asks for."""

from collections.abc import Sequence
from pathlib import Path

from corelane.model.record import record
from corelane_client.settings import Acks, Codec


@record
class Wish:
    """The options as they were given."""

    topic: str | None
    bootstrap: str
    output_format: str
    messages: Sequence[str]
    path: Path | None
    template: str | None
    output_template: str | None
    key: str | None
    key_separator: str | None
    headers: Sequence[str]
    partition: int | None
    tombstones: bool
    acks: Acks
    compression: Codec
    create: bool
    transactional_id: str | None
