"""What of a fetched record set a user may see: no markers, and nothing that was aborted."""

from collections.abc import Iterator, Sequence

from corelane.model.record import record
from corelane.wire.records import Batch


@record
class Aborted:
    """A transaction that was aborted: whose, and where its first record in this partition is."""

    producer_id: int
    first_offset: int


def visible(batches: Sequence[Batch], aborted: Sequence[Aborted]) -> Iterator[tuple[Batch, bool]]:
    """Yield every batch with whether its records are for users.

    *aborted* are all aborted transactions that overlap the batches, as a broker names them for
    read_committed; without it every record counts. Markers are never for users.
    """
    coming = sorted(aborted, key=lambda each: each.first_offset)
    at = 0
    open_producers: set[int] = set()
    for batch in batches:
        while at < len(coming) and coming[at].first_offset <= batch.last_offset:
            open_producers.add(coming[at].producer_id)
            at += 1
        if batch.is_control:
            # A marker ends its producer's transaction; the next one may commit.
            open_producers.discard(batch.producer.producer_id)
            yield batch, False
        else:
            is_aborted = batch.is_transactional and batch.producer.producer_id in open_producers
            yield batch, not is_aborted
