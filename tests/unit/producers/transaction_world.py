"""A small world of transactions where everything is lost, late, twice or dead at any moment.

Producers of both versions, also several at once with one id, write through coordinators and
partitions. A producer of version 1 is heard on its newest connection only, which is what its
brokers have to see to: its epoch does not tell its transactions apart.
"""

from collections.abc import Callable, Generator
from typing import Final

from corelane.model.errors import ErrorCode
from corelane.producers.transactions.requests import (
    AddPartitions,
    Answer,
    EndTransaction,
    InitProducerId,
    PartitionsAnswer,
    ProducerAnswer,
    Request,
)
from tests.unit.producers.transaction_nodes import (
    NONE,
    Batch,
    CoordinatorNode,
    PartitionNode,
    Reply,
    Surroundings,
    Value,
)

STEPS: Final = 10_000
Errand = Generator[Callable[[Reply], None], Answer | None, None]


class World(Surroundings):
    def __init__(self, seed: int, *, has_relics: bool = False) -> None:
        super().__init__(seed)
        self.has_relics = has_relics
        self.clients: list[Client] = []
        self.is_quiet = False

    def run(self) -> None:
        for _ in range(STEPS):
            self.step()
        self.is_quiet = True
        for _ in range(40):
            self.calm()
        assert all(client.is_over for client in self.clients)
        if self.has_relics:
            self.leave_relics()
        for _ in range(160):
            self.calm()

    def leave_relics(self) -> None:
        """Open transactions that no coordinator knows of, as a broker without checks leaves."""
        for node in self.coordinators:
            for record in node.live.live_records():
                found = record.transaction
                assert found is not None
                for partition in self.partitions:
                    epoch = self.random.randint(0, found.epoch)
                    standing = partition.transactions.standing(found.producer_id)
                    if standing is None or epoch >= standing.epoch:
                        value = (-self.number(), partition.name[1], 0)
                        partition.leave(found.producer_id, epoch, value)

    def step(self) -> None:
        rng = self.random
        self.now_ms += rng.choice((0, 0, 0, 1, 2, 5))
        node = rng.choice(self.coordinators)
        partition = rng.choice(self.partitions)
        chance = rng.random()
        if chance < 0.45:
            self.deliver(loss=0.02)
        elif chance < 0.60:
            node.commit()
        elif chance < 0.75:
            partition.commit()
        elif chance < 0.82:
            node.send_markers()
        elif chance < 0.90:
            partition.read()
        elif chance < 0.95:
            node.tick()
        elif chance < 0.97:
            self.disturb()
        elif chance < 0.98:
            partition.push()
        elif chance < 0.99 and sum(not client.is_over for client in self.clients) < 6:
            self.clients.append(Client(self, str(rng.randrange(6)), rng.choice((1, 2))))
        elif chance < 0.9925:
            node.crash()
        elif chance < 0.996:
            partition.change_leader()
        elif chance < 0.9961:
            partition.remake()
        elif chance < 0.998:
            self.skew_ms += rng.choice((-1, 1)) * rng.randrange(3_000)

    def calm(self) -> None:
        """Nothing is lost any more; everybody comes to an end."""
        self.now_ms += 500
        for client in self.clients:
            client.time_out()
        for node in self.coordinators:
            node.tick()
            node.send_markers()
        for _ in range(4):
            while self.messages:
                self.deliver(loss=0)
            for node in self.coordinators:
                while node.pending:
                    node.commit()
            for partition in self.partitions:
                partition.commit(everything=True)
        for partition in self.partitions:
            partition.push()
            partition.read()

    def disturb(self) -> None:
        waiting = [client for client in self.clients if not client.is_over]
        if waiting:
            self.random.choice(waiting).time_out()


class Client:
    """One instance of a producer; there may be others with its id, who fence each other."""

    def __init__(self, world: World, name: str, version: int) -> None:
        self.world = world
        self.name = name
        self.version = version
        self.producer_id = self.epoch = -1
        self.sequences: dict[int, int] = {}
        self.connection = 0
        self.heard: dict[object, int] = {}
        """What connection each broker heard last: fencing by connection, for version 1."""
        self.request = 0
        self.is_over = False
        self.errand = self.life()
        self._go(next(self.errand))

    def time_out(self) -> None:
        """Give up waiting; what was sent may arrive yet, on a connection that is not used now."""
        if not self.is_over:
            self.connection += 1
            self._resume(None)

    def _resume(self, answer: Answer | None) -> None:
        try:
            self._go(self.errand.send(answer))
        except StopIteration:
            self.is_over = True

    def _go(self, act: Callable[[Reply], None]) -> None:
        self.request += 1
        request = self.request

        def reply(answer: Answer) -> None:
            def arrive() -> None:
                if request == self.request and not self.is_over:
                    self._resume(answer)

            self.world.send(arrive)

        act(reply)

    def _to(self, broker: "CoordinatorNode | PartitionNode", act: Callable[[], None]) -> None:
        """Version 1 needs what a connection gives: no repeats, an order, an end with the broker."""
        connection, term = self.connection, broker.term

        def deliver() -> None:
            if self.version == 1:
                if term != broker.term or connection < self.heard.get(broker, 0):
                    return
                self.heard[broker] = connection
            act()

        self.world.send(deliver, repeats=self.version == 2)

    def _ask(self, request: Request) -> Callable[[Reply], None]:
        node = self.world.coordinator_of(self.name)
        return lambda reply: self._to(node, lambda: node.ask(request, reply))

    def _write(self, partition: PartitionNode, batch: Batch) -> Callable[[Reply], None]:
        return lambda reply: self._to(partition, lambda: partition.produce(batch, reply))

    # --- what it does

    def life(self) -> Errand:
        if not (yield from self._initialise()):
            return
        while not self.world.is_quiet:
            transaction = self.world.number()
            parts = self.world.random.sample(range(3), self.world.random.randint(1, 3))
            error = NONE
            if self.version == 1:
                names = tuple(("t", number) for number in parts)
                request = AddPartitions(self.name, self.producer_id, self.epoch, names)
                error = yield from self._until_known(request)
                if error is not NONE:
                    return
            is_doubtful = False
            for number in parts:
                for count in range(self.world.random.randint(1, 3)):
                    error = yield from self._produce((transaction, number, count))
                    is_doubtful = is_doubtful or error is not NONE
            commit = not is_doubtful and self.world.random.random() < 0.7
            if self.world.random.random() < 0.05:
                return  # dies: the timeout has to end it
            if not (yield from self._end(transaction, commit=commit)):
                return
            if is_doubtful and self.version == 1 and not (yield from self._initialise()):
                return

    def _initialise(self) -> Generator[Callable[[Reply], None], Answer | None, bool]:
        known = (self.producer_id, self.epoch)
        while True:
            timeout_ms = self.world.random.choice((300, 1_500, 5_000))
            request = InitProducerId(self.name, timeout_ms, -1, *known)
            answer = yield self._ask(request)
            if self._goes_on(answer):
                return True
            if isinstance(answer, ProducerAnswer) and not _may_retry(answer.error):
                return False

    def _goes_on(self, answer: Answer | None) -> bool:
        if not isinstance(answer, ProducerAnswer) or answer.error is not NONE:
            return False
        if (answer.producer_id, answer.epoch) != (self.producer_id, self.epoch):
            self.sequences.clear()
        self.producer_id, self.epoch = answer.producer_id, answer.epoch
        return True

    def _until_known(
        self, request: Request
    ) -> Generator[Callable[[Reply], None], Answer | None, ErrorCode]:
        while True:
            answer = yield self._ask(request)
            if isinstance(answer, PartitionsAnswer) and not _may_retry(answer.errors[0]):
                return answer.errors[0]

    def _produce(
        self, value: Value
    ) -> Generator[Callable[[Reply], None], Answer | None, ErrorCode]:
        """Try some times; what is in doubt then makes the transaction abort."""
        partition = self.world.partitions[value[1]]
        sequence = self.sequences.get(value[1], 0)
        self.sequences[value[1]] = sequence + 1
        batch = Batch(self.name, self.version, self.producer_id, self.epoch, sequence, value)
        for _ in range(6):
            life = partition.entries
            answer = yield self._write(partition, batch)
            if isinstance(answer, ProducerAnswer) and answer.error is NONE:
                if life is partition.entries:
                    self.world.acknowledged.add(value)
                return NONE
            if isinstance(answer, ProducerAnswer) and not _may_retry(answer.error):
                return answer.error
        return ErrorCode.REQUEST_TIMED_OUT

    def _end(
        self, transaction: int, *, commit: bool
    ) -> Generator[Callable[[Reply], None], Answer | None, bool]:
        if commit:
            self.world.asked_commit.add(transaction)
        known = (self.producer_id, self.epoch)
        while True:
            request = EndTransaction(self.name, *known, commit, self.version)
            answer = yield self._ask(request)
            if self._goes_on(answer):
                if commit:
                    self.world.told_commit.add(transaction)
                return True
            if isinstance(answer, ProducerAnswer) and not _may_retry(answer.error):
                return False


def _may_retry(error: ErrorCode) -> bool:
    return error in {ErrorCode.CONCURRENT_TRANSACTIONS, ErrorCode.NOT_ENOUGH_REPLICAS}
