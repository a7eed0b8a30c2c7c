"""One connection to one broker: requests leave in order, and answers come back in that order."""

import math
import os
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import trio

from corelane.model.record import record
from corelane_client import protocol
from corelane_client.address import Address
from corelane_client.errors import (
    AnswerTimeoutError,
    ClientError,
    ConnectError,
    KafkaError,
    ProtocolError,
)
from corelane_client.frames import FrameCutter
from corelane_client.protocol import Api
from corelane_client.settings import ConnectionSettings

Connect = Callable[[Address], Any]
"""Opens a byte stream to an address; raises OSError. Tests bring their own."""

RECEIVE_BYTES: Final = 256 * 1024
_JOIN_BYTES_MAX: Final = 64 * 1024
_CORRELATION_MAX: Final = 2**31


Done = Callable[[Any], None]
"""Gets the decoded answer, or a ClientError. Called once, from the connection's own task."""


@record
class _Pending:
    """A request that was submitted and not answered."""

    correlation_id: int
    api: Api
    version: int
    deadline_s: float
    done: Done


@record
class _Unanswered:
    """A request that gets no answer; it is done when so many frames have been sent."""

    frames: int
    deadline_s: float
    done: Done


async def connect_tcp(address: Address) -> trio.abc.HalfCloseableStream:
    """Open a TCP connection."""
    return await trio.open_tcp_stream(address.host, address.port)


class Connection:
    """A connection that is open from `run`'s start until something fails or `close`.

    Nothing is sent twice: after a failure every request without an answer gets the error, and
    whether the broker acted on it is not known.
    """

    def __init__(
        self, address: Address, settings: ConnectionSettings, connect: Connect = connect_tcp
    ) -> None:
        self.address = address
        self.ranges: dict[int, tuple[int, int]] = {}
        """The versions of each API that the broker serves."""
        self._settings = settings
        self._connect = connect
        self._pending: deque[_Pending] = deque()
        self._outgoing: list[bytes] = []
        self._unanswered: deque[_Unanswered] = deque()
        self._submitted = 0
        self._is_finishing = False
        self._has_outgoing = trio.Event()
        self._next_correlation_id = 0
        self._scope = trio.CancelScope()
        self._failure: ClientError | None = None
        self._is_open = False
        self.ended = trio.Event()
        """Nothing is sent or received any more."""

    @property
    def is_open(self) -> bool:
        """Requests can be submitted."""
        return self._is_open

    @property
    def pending_count(self) -> int:
        """The number of requests without an answer."""
        return len(self._pending)

    def close(self) -> None:
        """Cut the connection; what is pending gets a ConnectError."""
        self._fail(ConnectError(f"the connection to {self.address} was closed"))

    def finish(self) -> None:
        """Have it end as soon as the broker has read everything submitted, and no sooner.

        To be cut before an answer has come would reset it, and the system would throw away what
        the broker has not read: that matters where no answer tells (acks=0).
        """
        self._is_finishing = True
        self._has_outgoing.set()

    def serves(self, api: Api) -> bool:
        """Whether the broker knows an API at all."""
        return api in self.ranges

    def version_of(self, api: Api, version_max: int | None = None) -> int:
        """Return the highest version both sides know, at most *version_max*.

        Raises ProtocolError if there is none.
        """
        ours = protocol.versions(api)
        theirs = self.ranges.get(api)
        if theirs is None:
            raise ProtocolError(
                f"the broker at {self.address} does not serve {api.title}",
                "Use a broker that does; Kafka has it from some version on.",
            )
        top = min(ours[1], theirs[1], version_max if version_max is not None else ours[1])
        if top < max(ours[0], theirs[0]):
            raise ProtocolError(
                f"the broker at {self.address} serves {api.title} in versions {theirs[0]} to"
                f" {theirs[1]}, this client knows {ours[0]} to {ours[1]}",
                "Update the older of the two.",
            )
        return top

    def submit(self, api: Api, version: int, body: object, done: Done, timeout_ms: int = 0) -> None:
        """Send a request after all submitted before it; *done* gets the outcome.

        *timeout_ms* is added to the request timeout, for requests that ask the broker to wait.
        The connection must be open.
        """
        correlation_id = self._queue(api, version, body)
        deadline_s = self._deadline_s(timeout_ms)
        self._pending.append(_Pending(correlation_id, api, version, deadline_s, done))
        self._watch_deadlines()

    def submit_unanswered(self, api: Api, version: int, body: object, done: Done) -> None:
        """Send a request that gets no answer (Produce with acks=0), after all before it.

        *done* gets None once the system has all of its bytes: what is sent then reaches the
        broker unless the network or the broker fails, also when this connection is closed next.
        """
        self._queue(api, version, body)
        self._unanswered.append(_Unanswered(self._submitted, self._deadline_s(0), done))
        self._watch_deadlines()

    def _deadline_s(self, timeout_ms: int) -> float:
        return trio.current_time() + (self._settings.request_timeout_ms + timeout_ms) / 1000

    def _watch_deadlines(self) -> None:
        """Have the reader woken when the first request of either kind is overdue."""
        firsts = [each[0].deadline_s for each in (self._pending, self._unanswered) if each]
        self._scope.deadline = min(firsts, default=math.inf)

    def _queue(self, api: Api, version: int, body: object) -> int:
        """Have a request sent; return its correlation id."""
        assert self._is_open
        correlation_id = self._next_correlation_id
        self._next_correlation_id = (correlation_id + 1) % _CORRELATION_MAX
        frame = protocol.encode(api, version, correlation_id, self._settings.client_id, body)
        self._outgoing.append(frame)
        self._submitted += 1
        self._has_outgoing.set()
        return correlation_id

    async def request(
        self, api: Api, body: object, version_max: int | None = None, timeout_ms: int = 0
    ) -> Any:
        """Send a request and return its decoded answer. Raises ClientError.

        Being cancelled abandons the answer and leaves the connection as it is.
        """
        version = self.version_of(api, version_max)
        if not self._is_open:
            raise self._failure or ConnectError(f"not connected to {self.address}")
        outcome: list[Any] = []
        is_done = trio.Event()

        def done(answer: Any) -> None:
            outcome.append(answer)
            is_done.set()

        self.submit(api, version, body, done, timeout_ms)
        await is_done.wait()
        if isinstance(outcome[0], ClientError):
            raise outcome[0]
        return outcome[0]

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Connect and negotiate, report started, then carry requests until closed or broken.

        Before it has started it raises ClientError; afterwards failures go to the requests.
        """
        stream = await self._open()
        try:
            cutter = FrameCutter(str(self.address))
            await self._negotiate(stream, cutter)
            self._is_open = True
            task_status.started()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, stream)
                await self._read(stream, cutter)
                nursery.cancel_scope.cancel()
        finally:
            self._fail(ConnectError(f"the connection to {self.address} was closed"))
            await trio.aclose_forcefully(stream)

    async def _open(self) -> trio.abc.HalfCloseableStream:
        """Return a new byte stream to the broker."""
        try:
            with trio.fail_after(self._settings.connect_timeout_ms / 1000):
                stream: trio.abc.HalfCloseableStream = await self._connect(self.address)
        except OSError as error:
            raise ConnectError(
                f"cannot connect to {self.address}: {_why(error)}",
                "Check that a broker listens there and that the address is right.",
                retriable=True,
            ) from error
        except trio.TooSlowError as error:
            raise ConnectError(
                f"cannot connect to {self.address}: no answer within"
                f" {self._settings.connect_timeout_ms} ms",
                "Check the address, and whether a firewall drops the packets.",
                retriable=True,
            ) from error
        return stream

    async def _negotiate(self, stream: trio.abc.Stream, cutter: FrameCutter) -> None:
        """Ask which APIs the broker serves, in the newest words it understands."""
        version = protocol.versions(Api.API_VERSIONS)[1]
        answer = await self._first_exchange(stream, cutter, version)
        if answer.error_code == protocol.UNSUPPORTED_VERSION:
            rows = {row.api_key: row.max_version for row in answer.api_keys}
            version = min(rows.get(Api.API_VERSIONS, 0), version)
            answer = await self._first_exchange(stream, cutter, version)
        if answer.error_code:
            raise KafkaError(answer.error_code, f"{self.address} refused to negotiate")
        self.ranges = {row.api_key: (row.min_version, row.max_version) for row in answer.api_keys}

    async def _first_exchange(
        self, stream: trio.abc.Stream, cutter: FrameCutter, version: int
    ) -> Any:
        """Send ApiVersions and return its answer, while nothing else is under way."""
        body = protocol.api_versions_request()
        frame = protocol.encode(Api.API_VERSIONS, version, 0, self._settings.client_id, body)
        try:
            with trio.fail_after(self._settings.connect_timeout_ms / 1000):
                await stream.send_all(frame)
                while (received := cutter.take()) is None:
                    data = await stream.receive_some(RECEIVE_BYTES)
                    if not data:
                        raise ProtocolError(
                            f"{self.address} closed the connection at the first question",
                            "If this port wants TLS or SASL, use a plaintext one:"
                            " both are not supported yet. Otherwise it is not a Kafka broker.",
                        )
                    cutter.add(data)
        except trio.BrokenResourceError as error:
            raise ConnectError(
                f"{self.address} cut the connection at the first question",
                "Check that it is a Kafka broker with a plaintext port.",
                retriable=True,
            ) from error
        except trio.TooSlowError as error:
            raise AnswerTimeoutError(
                f"{self.address} accepted the connection and said nothing for"
                f" {self._settings.connect_timeout_ms} ms",
                "Check that it is a Kafka broker (an HTTP server behaves so) and that it is"
                " healthy.",
                retriable=True,
            ) from error
        return protocol.decode_api_versions(version, received)

    async def _write(self, stream: trio.abc.HalfCloseableStream) -> None:
        """Send what is submitted, small requests of one turn together."""
        try:
            while True:
                await self._has_outgoing.wait()
                self._has_outgoing = trio.Event()
                frames, self._outgoing = self._outgoing, []
                upto = self._submitted
                if sum(map(len, frames)) <= _JOIN_BYTES_MAX:
                    frames = [b"".join(frames)]
                for frame in frames:
                    await stream.send_all(frame)
                self._sent(upto)
                if self._is_finishing and not self._outgoing:
                    await stream.send_eof()
                    return
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._fail(self._lost("it was cut while sending"))

    def _sent(self, upto: int) -> None:
        """Tell those who wait only for that: so many frames were sent."""
        while self._unanswered and self._unanswered[0].frames <= upto:
            self._unanswered.popleft().done(None)
        self._watch_deadlines()

    async def _read(self, stream: trio.abc.Stream, cutter: FrameCutter) -> None:
        """Hand out answers until the connection ends or the oldest answer is overdue."""
        with self._scope:
            try:
                while self._is_open:
                    frame = cutter.take()
                    if frame is not None:
                        self._answered(frame)
                        continue
                    data = await stream.receive_some(RECEIVE_BYTES)
                    if not data:
                        self._fail(self._lost("the broker closed it"))
                        return
                    cutter.add(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._fail(self._lost("it was cut"))
            except ProtocolError as error:
                self._fail(error)
        if self._is_open:
            assert self._scope.cancelled_caught
            self._fail(self._overdue())

    def _overdue(self) -> AnswerTimeoutError:
        """Return what the broker did not do in time. Answers come in order, and so is sent: what
        is behind the overdue request can neither be answered nor sent.
        """
        if self._pending and self._pending[0].deadline_s == self._scope.deadline:
            sentence = f"{self.address} did not answer {self._pending[0].api.title} in time"
        else:
            sentence = f"{self.address} takes nothing more"
        next_step = "Check that the broker is healthy, or allow more time."
        return AnswerTimeoutError(sentence, next_step, retriable=True)

    def _answered(self, frame: bytes) -> None:
        """Give an answer to the request it belongs to, the oldest."""
        if not self._pending:
            raise ProtocolError(f"{self.address} sent an answer nobody asked for")
        oldest = self._pending[0]
        correlation_id = int.from_bytes(frame[:4], "big", signed=True)
        if correlation_id != oldest.correlation_id:
            raise ProtocolError(
                f"{self.address} answered request {correlation_id} before request"
                f" {oldest.correlation_id}"
            )
        answer = protocol.decode(oldest.api, oldest.version, frame)
        self._pending.popleft()
        self._watch_deadlines()
        oldest.done(answer)

    def _fail(self, error: ClientError) -> None:
        """End the connection once; every request without an answer gets *error*."""
        if self._failure is None:
            self._failure = error
        self._is_open = False
        self._scope.cancel()
        self.ended.set()
        pending, self._pending = self._pending, deque()
        unanswered, self._unanswered = self._unanswered, deque()
        for done in [each.done for each in pending] + [each.done for each in unanswered]:
            done(self._failure)

    def _lost(self, how: str) -> ConnectError:
        return ConnectError(f"lost the connection to {self.address}: {how}", retriable=True)


def _why(error: OSError) -> str:
    """Return the system's words; trio hides them behind a summary of all attempts."""
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    found = cause if isinstance(cause, OSError) else error
    # gaierror numbers mean something else, so only plain errors are looked up.
    if type(found).__name__ != "gaierror" and found.errno:
        return os.strerror(found.errno).lower()
    return (found.strerror or str(found)).lower()
