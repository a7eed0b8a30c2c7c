"""A coordinator with a log and a clock, and the few words in which tests speak to it."""

from corelane.groups.coordinator import GroupCoordinator, GroupRecord
from corelane.groups.records import CommittedOffset, Place
from corelane.groups.requests import (
    Answer,
    Beat,
    Commit,
    Committed,
    FetchedOffsets,
    FetchOffsets,
    GroupSettings,
    Identity,
    Join,
    Joined,
    Leave,
    Left,
    Request,
    Simple,
    Sync,
    Synced,
)
from corelane.model.errors import ErrorCode
from tests.unit.groups.consumer_world import Topics

SESSION_MS = 10_000
REBALANCE_MS = 30_000
DELAY_MS = 3_000
WALL_MS = 1_700_000_000_000
GROUP = "g"
PLACE = ("t", 0)


class Bench:
    """One coordinator; its records are the log that a restart replays."""

    def __init__(self, *, delay_ms: int = DELAY_MS, members_max: int = 100) -> None:
        self.settings = GroupSettings(initial_delay_ms=delay_ms, members_max=members_max)
        self.now_ms = 1_000
        self.log: list[GroupRecord] = []
        self.answers: dict[int, Answer] = {}
        self.tokens = 0
        self.ids = 0
        self.topics = Topics({"t": 2})
        self.coordinator = self._new()

    @property
    def wall_ms(self) -> int:
        return WALL_MS + self.now_ms

    def _new(self) -> GroupCoordinator:
        coordinator = GroupCoordinator(self.settings, self.topics)
        for found in self.log:
            coordinator.replay(found)
        coordinator.loaded(self.now_ms, self.wall_ms)
        return coordinator

    def restart(self) -> None:
        """Lose everything but the log, as when another replica leads."""
        self.coordinator = self._new()

    def ask(self, request: Request) -> int:
        """Send a request, and return the token of its answer."""
        self.tokens += 1
        self.coordinator.handle(self.now_ms, self.wall_ms, self.tokens, request)
        self._settle()
        return self.tokens

    def _settle(self) -> None:
        outcome = self.coordinator.take()
        self.log += outcome.records
        for each in outcome.answers:
            assert each.token not in self.answers, "answered twice"
            self.answers[each.token] = each.answer

    def pass_ms(self, ms: int) -> None:
        """Let time go by, from deadline to deadline."""
        end_ms = self.now_ms + ms
        while self.coordinator.next_deadline_ms <= end_ms:
            self.now_ms = max(self.now_ms, self.coordinator.next_deadline_ms)
            self.coordinator.tick(self.now_ms, self.wall_ms)
            self._settle()
        self.now_ms = end_ms

    # --- members ---

    def join(
        self,
        member_id: str = "",
        *,
        instance: str | None = None,
        protocols: tuple[tuple[str, bytes], ...] = (("range", b"s"),),
        kind: str = "consumer",
        session_ms: int = SESSION_MS,
        version: int = 3,
        group: str = GROUP,
    ) -> int:
        """Ask to join."""
        self.ids += 1
        return self.ask(
            Join(
                group, member_id, f"m{self.ids}", instance, "client", "/host", session_ms,
                REBALANCE_MS, kind, protocols, version >= 4, version >= 9,
            )
        )  # fmt: skip

    def joined(self, token: int) -> Joined:
        """Return the answer to a join, which must be there."""
        answer = self.answers[token]
        assert isinstance(answer, Joined)
        return answer

    def sync(self, joined: Joined, assignments: dict[str, bytes] | None = None) -> int:
        """Ask what to read; the leader says it."""
        return self.ask(
            Sync(
                Identity(GROUP, joined.generation_id, joined.member_id, None),
                None, None, tuple((assignments or {}).items()),
            )
        )  # fmt: skip

    def synced(self, token: int) -> Synced:
        """Return the answer to a sync, which must be there."""
        answer = self.answers[token]
        assert isinstance(answer, Synced)
        return answer

    def beat(self, joined: Joined, instance: str | None = None) -> ErrorCode:
        """Send a heartbeat, and return what it is answered."""
        identity = Identity(GROUP, joined.generation_id, joined.member_id, instance)
        answer = self.answers[self.ask(Beat(identity))]
        assert isinstance(answer, Simple)
        return answer.error

    def leave(self, *members: tuple[str, str | None]) -> list[ErrorCode]:
        """Have members leave, and return each one's error."""
        answer = self.answers[self.ask(Leave(GROUP, members))]
        assert isinstance(answer, Left)
        return [error for _member, _instance, error in answer.members]

    def stable(self, count: int = 2, **how: object) -> list[Joined]:
        """Return the members of a group that all have what they read; the leader is first."""
        tokens = [self.join(**how) for _ in range(count)]  # type: ignore[arg-type]
        self.pass_ms(2 * self.settings.initial_delay_ms)
        members = [self.joined(token) for token in tokens]
        members.sort(key=lambda each: each.member_id != each.leader)
        self.assign(members)
        return members

    def assign(self, members: list[Joined]) -> None:
        """Have everybody sync; each is to read what its id says."""
        for follower in members[1:]:
            self.sync(follower)
        self.sync(members[0], {each.member_id: each.member_id.encode() for each in members})

    # --- offsets ---

    def commit(
        self,
        offset: int,
        joined: Joined | None = None,
        *,
        place: Place = PLACE,
        metadata: str = "",
        producer: tuple[int, int] | None = None,
        group: str = GROUP,
    ) -> ErrorCode:
        """Commit one offset, and return its error."""
        identity = Identity(group, -1, "", None)
        if joined is not None:
            identity = Identity(group, joined.generation_id, joined.member_id, None)
        value = CommittedOffset(offset, 5, metadata, self.wall_ms)
        answer = self.answers[self.ask(Commit(identity, ((place, value),), producer))]
        assert isinstance(answer, Committed)
        return answer.errors[0]

    def offset(
        self, place: Place = PLACE, *, is_stable: bool = False, group: str = GROUP
    ) -> int | ErrorCode | None:
        """Return a committed offset; None: there is none; the error where there is one."""
        answer = self.answers[self.ask(FetchOffsets(group, (place,), is_stable))]
        assert isinstance(answer, FetchedOffsets)
        ((_place, value, error),) = answer.offsets
        if error:
            return error
        return None if value is None else value.offset
