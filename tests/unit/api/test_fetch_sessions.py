"""Fetch sessions (KIP-227): what a client need not say again, and is not told again.

The rules are those of Kafka's FetchManager; each test's name is one of them.
"""

import random
from collections.abc import Sequence

import pytest

from corelane.model.errors import ErrorCode
from corelane.model.limits import INT32_MAX
from corelane.shard import fetch_sessions
from corelane.shard.fetch_sessions import EVICTION_MS, FetchSessions
from corelane.wire.compiler import Message, message_type
from corelane.wire.records import split_batches
from tests.unit.api.world import MIB, World, batch_of
from tests.unit.shard.node import BOOTSTRAP, Node

TOPICS = {"t": 3, "u": 2}
VERSIONS = (7, 11, 12, 13, 17)
Key = tuple[str, int]


class Client:
    """A consumer with a session, that looks after it as clients do."""

    def __init__(self, world: World, version: int, conn: int = 5) -> None:
        self.world = world
        self.version = version
        self.conn = conn
        self.number = 0
        self.epoch = 0

    def ask(
        self,
        offsets: dict[Key, int],
        forgotten: Sequence[Key] = (),
        *,
        ids: tuple[int, int] | None = None,
        bytes_max: int = MIB,
    ) -> Message:
        number, epoch = ids or (self.number, self.epoch)
        request = message_type("FetchRequest")(
            topics=[self._topic(key, offset, bytes_max) for key, offset in offsets.items()],
            forgotten_topics_data=[
                message_type("FetchRequest.ForgottenTopic")(
                    topic=key[0], topic_id=self._id(key[0]), partitions=[key[1]]
                )
                for key in forgotten
            ],
            max_wait_ms=0,
            min_bytes=1,
            max_bytes=bytes_max,
            session_id=number,
            session_epoch=epoch,
        )
        answer = self.world.call(request, self.version, self.conn)
        if not answer.error_code and epoch >= 0:
            self.number = answer.session_id
            self.epoch = epoch + 1 if answer.session_id else 0
        return answer

    def rows(self, offsets: dict[Key, int], forgotten: Sequence[Key] = ()) -> dict[Key, Message]:
        answer = self.ask(offsets, forgotten)
        assert answer.error_code == 0
        return self.told(answer)

    def told(self, answer: Message) -> dict[Key, Message]:
        names = {self._id(name): name for name in TOPICS}
        return {
            (names[topic.topic_id] if self.version >= 13 else topic.topic, row.partition_index): row
            for topic in answer.responses
            for row in topic.partitions
        }

    def _id(self, name: str) -> bytes:
        known = self.world.shard.groups.topics.get(name.encode())
        return b"?" * 16 if known is None else known.topic_id

    def _topic(self, key: Key, offset: int, bytes_max: int) -> Message:
        part = message_type("FetchRequest.FetchPartition")(
            partition=key[1], fetch_offset=offset, partition_max_bytes=bytes_max
        )
        return message_type("FetchRequest.FetchTopic")(
            topic=key[0], topic_id=self._id(key[0]), partitions=[part]
        )


ALL: dict[Key, int] = {(name, at): 0 for name, count in TOPICS.items() for at in range(count)}


@pytest.fixture
def world() -> World:
    made = World()
    for name, count in TOPICS.items():
        made.create_topic(name, count)
    return made


@pytest.fixture(params=VERSIONS)
def client(world: World, request: pytest.FixtureRequest) -> Client:
    made = Client(world, request.param)
    assert made.rows(ALL).keys() == ALL.keys()
    assert made.number > 0
    return made


def test_who_asks_for_no_session_gets_none(world: World) -> None:
    client = Client(world, 12)
    assert client.ask(ALL, ids=(0, -1)).session_id == 0
    assert len(world.shard.fetch_sessions) == 0


def test_nothing_new_is_an_empty_answer_and_the_session_goes_on(client: Client) -> None:
    for _ in range(3):
        assert client.rows({}) == {}
    assert client.epoch == 4


def test_only_what_has_data_is_answered(client: Client) -> None:
    client.world.produce("t", batch_of(3), partition=1)
    found = client.rows({})
    assert found.keys() == {("t", 1)}
    assert found["t", 1].high_watermark == 3
    assert len([*split_batches(bytes(found["t", 1].records))]) == 1
    assert client.rows({("t", 1): 3}) == {}


def test_data_that_was_not_moved_past_is_answered_again(client: Client) -> None:
    client.world.produce("t", batch_of(), partition=1)
    assert client.rows({}).keys() == client.rows({}).keys() == {("t", 1)}


def test_a_new_high_watermark_alone_is_news(client: Client) -> None:
    client.rows({("t", 1): 1_000_000})  # out of range
    client.world.produce("u", batch_of(2))
    client.rows({("u", 0): 2, ("t", 1): 0})
    client.world.produce("u", batch_of(2))
    client.rows({("u", 0): 4})  # it is told of 4 with the offset that it asks for next
    assert client.rows({}) == {}


def test_a_partition_with_an_error_is_answered_each_time_and_once_when_it_is_well(
    client: Client,
) -> None:
    for _ in range(2):
        found = client.rows({("t", 1): 99})
        assert found["t", 1].error_code == ErrorCode.OFFSET_OUT_OF_RANGE
        assert client.rows({}).keys() == {("t", 1)}
    assert client.rows({("t", 1): 0})["t", 1].error_code == 0
    assert client.rows({}) == {}


def test_what_is_forgotten_is_not_answered(client: Client) -> None:
    client.rows({}, [("t", 1), ("u", 0)])
    client.world.produce("t", batch_of(), partition=1)
    client.world.produce("u", batch_of(), partition=1)
    assert client.rows({}).keys() == {("u", 1)}


def test_what_is_forgotten_and_named_in_one_request_stays(client: Client) -> None:
    client.world.produce("t", batch_of(), partition=1)
    assert client.rows({("t", 1): 0}, [("t", 1)]).keys() == {("t", 1)}


def test_a_partition_may_be_added(world: World) -> None:
    client = Client(world, 12)
    client.rows({("t", 0): 0})
    assert client.rows({("u", 1): 0}).keys() == {("u", 1)}
    world.produce("u", batch_of(), partition=1)
    assert client.rows({}).keys() == {("u", 1)}


def test_a_session_that_forgets_everything_ends(client: Client) -> None:
    answer = client.ask({}, [*ALL])
    assert (answer.error_code, answer.session_id, answer.responses) == (0, 0, [])
    assert len(client.world.shard.fetch_sessions) == 0


def test_an_unknown_session_and_an_unexpected_epoch(client: Client) -> None:
    answer = client.ask({}, ids=(client.number % INT32_MAX + 1, 1))
    assert answer.error_code == ErrorCode.FETCH_SESSION_ID_NOT_FOUND
    assert (answer.session_id, answer.responses) == (0, [])
    for epoch in (client.epoch - 1, client.epoch + 1, INT32_MAX):
        if epoch > 0:
            answer = client.ask({}, ids=(client.number, epoch))
            assert answer.error_code == ErrorCode.INVALID_FETCH_SESSION_EPOCH
    assert client.rows({}) == {}, "the session itself is none the worse"


def test_names_and_ids_do_not_mix_in_a_session(client: Client) -> None:
    other = Client(client.world, 12 if client.version >= 13 else 13)
    answer = other.ask({}, ids=(client.number, client.epoch))
    assert answer.error_code == ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR


def test_a_full_request_with_an_id_ends_that_session_and_opens_another(client: Client) -> None:
    before = client.number
    assert client.ask(ALL, ids=(before, 0)).session_id not in {0, before}
    assert len(client.world.shard.fetch_sessions) == 1
    assert client.ask(ALL, ids=(client.number, -1)).session_id == 0
    assert len(client.world.shard.fetch_sessions) == 0


def test_an_unknown_topic_is_part_of_the_session(world: World) -> None:
    client = Client(world, 12)
    assert client.rows({("absent", 0): 0, ("t", 0): 0})["absent", 0].error_code
    assert client.rows({}).keys() == {("absent", 0)}


def test_a_partition_with_much_data_does_not_starve_the_others(world: World) -> None:
    client = Client(world, 12)
    for partition in (0, 1):
        for _ in range(4):
            world.produce("t", batch_of(value=bytes(1000)), partition=partition)
    client.ask({("t", 0): 0, ("t", 1): 0}, bytes_max=1200)
    first = client.told(client.ask({}, bytes_max=1200))
    second = client.told(client.ask({}, bytes_max=1200))
    with_data = [key for found in (first, second) for key, row in found.items() if row.records]
    assert sorted(with_data) == [("t", 0), ("t", 1)]


def test_the_epoch_after_the_greatest_is_1() -> None:
    sessions = FetchSessions(random.Random(1), lambda: 1_000)
    session = sessions.open([(b"t", (0, 0, 0, 0, 0, 0, 0, 0))], 0, has_ids=False)
    assert session is not None
    session.epoch = INT32_MAX
    session.advance()
    assert session.epoch == 1


def test_sessions_are_bounded_and_the_one_unused_longest_gives_way() -> None:
    slots = 2
    sessions = FetchSessions(random.Random(1), lambda: slots)
    rows = [(b"t", (0, 0, number, 0, 0, 0, 0, 0)) for number in range(3)]
    first, second = (sessions.open(rows, at, has_ids=False) for at in (0, 10))
    assert first is not None
    assert second is not None
    sessions.use(first, [], [], 20)
    assert sessions.open(rows, 10 + EVICTION_MS - 1, has_ids=False) is None
    assert sessions.open(rows, 10 + EVICTION_MS, has_ids=False) is not None
    assert sessions.find(second.number) is None
    assert sessions.find(first.number) is first
    assert (sessions.row_count, sessions.evicted) == (6, 1)
    slots = 3  # the setting acts at once
    assert sessions.open(rows, 30, has_ids=False) is not None
    slots = 1
    assert sessions.open(rows, 30, has_ids=False) is None
    assert len(sessions) == 3, "those in use stay"
    assert sessions.open(rows, 30 + 2 * EVICTION_MS, has_ids=False) is not None
    assert len(sessions) == 1


def test_partitions_of_sessions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_sessions, "SESSION_ROWS_MAX", 4)
    sessions = FetchSessions(random.Random(1), lambda: 1_000)
    rows = [(b"t", (0, 0, number, 0, 0, 0, 0, 0)) for number in range(3)]
    assert sessions.open(rows, 0, has_ids=False) is not None
    assert sessions.open(rows, 0, has_ids=False) is None
    assert sessions.row_count == 3


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("core", [0, 1, 2])
def test_a_door_of_the_whole_node_keeps_the_session(version: int, core: int) -> None:
    node = Node(3, "")
    for each in node.cores.values():
        each.listener = BOOTSTRAP
    for name, count in TOPICS.items():
        node[0].create_topic(name, count)
    client = Client(node[core], version)
    assert client.rows(ALL).keys() == ALL.keys()
    assert client.rows({}) == {}
    for key in ALL:
        node[0].produce(key[0], batch_of(2), partition=key[1])
        found = client.rows({})
        assert found.keys() == {key}
        assert found[key].high_watermark == 2
        assert client.rows({key: 2}) == {}
    client.rows({}, [("t", 0)])
    node[0].produce("t", batch_of())
    assert client.rows({}) == {}
    wrong = client.ask({}, ids=(client.number, client.epoch + 1))
    assert wrong.error_code == ErrorCode.INVALID_FETCH_SESSION_EPOCH
    assert client.ask({}, [key for key in ALL if key != ("t", 0)]).session_id == 0
    assert sum(len(each.shard.fetch_sessions) for each in node.cores.values()) == 0
