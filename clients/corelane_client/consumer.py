"""Reads records from partitions it is told, in order within each, fetching ahead."""

from collections.abc import Sequence

from corelane_client.errors import no_partition
from corelane_client.fetching import Assigned
from corelane_client.offsets import Edge
from corelane_client.reading import Reader, Start


class Consumer(Reader):
    """A consumer of partitions it is told, to be used in an `async with` block.

        async with Consumer("127.0.0.1:9092") as consumer:
            await consumer.assign("greetings", stop=Edge.END)
            async for record in consumer:
                print(record.offset, record.value)

    Entering connects and raises ConnectError when no broker answers. Iterating waits for records
    for ever, or ends once every assigned partition has reached its `stop`. Records of one
    partition come in the order of their offsets. Only committed records come: what was seen does
    not disappear. One task may iterate at a time.

    While brokers fail in ways that may pass, iterating waits; after `retry_timeout_ms` without
    any success it raises. After an error iterating may go on, where the error allows it.
    """

    async def assign(
        self,
        topic: str,
        partitions: Sequence[int] | None = None,
        *,
        start: Start = Edge.BEGINNING,
        stop: Start | None = None,
    ) -> None:
        """Read *partitions* of *topic* too (None: all), from *start* up to before *stop*.

        Places that are not offsets are looked up now. Raises ClientError.
        """
        known = (await self._pool.retry(lambda: self._pool.topic(topic))).partitions
        chosen = [*known] if partitions is None else [*partitions]
        for partition in chosen:
            if partition not in known:
                raise no_partition(topic, len(known), partition)
        starts = await self._resolve(topic, chosen, start)
        stops = {} if stop is None else await self._resolve(topic, chosen, stop)
        for partition in chosen:
            assigned = Assigned(topic, partition, starts[partition], stops.get(partition))
            self.unassign(topic, partition)
            self._fetcher.assigned[topic, partition] = assigned
        self._fetcher.wake()

    def unassign(self, topic: str, partition: int) -> None:
        """Read this partition no more."""
        self._fetcher.drop(topic, partition)
