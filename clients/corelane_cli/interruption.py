"""What Ctrl-C and SIGTERM do during a conversation: cancel, and raise only in what blocks."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

import trio

_TAKEN: Final = (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGTERM, signal.SIG_DFL),
)
"""The signals, and what they do unless somebody has said otherwise."""
_IS_BLOCKING: Final = ContextVar("is_blocking", default=False)


@contextmanager
def blocking() -> Iterator[None]:
    """Let Ctrl-C raise in the block: it may wait for somebody outside, and there is no await."""
    before = _IS_BLOCKING.set(True)
    try:
        yield
    finally:
        _IS_BLOCKING.reset(before)


class Interruption:
    """Turns the first Ctrl-C, or SIGTERM, into a cancellation.

    As an exception it would strike in whichever task happens to run: what that one was about to
    clean up is told to others as errors, and theirs are shown instead. A second Ctrl-C raises
    wherever it strikes, should the cancellation hang. SIGTERM is the same: who is told to stop by
    a supervisor has a group to leave, and records to commit, as at a keyboard.
    """

    def __init__(self) -> None:
        self.has_struck = False
        self._cancel: Callable[[], None] | None = None

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """Take the signals over in the block that nobody else has (shells let some be ignored)."""
        taken = [(number, usual) for number, usual in _TAKEN if signal.getsignal(number) == usual]
        for number, _usual in taken:
            signal.signal(number, self._strike)
        try:
            yield
        finally:
            for number, usual in taken:
                signal.signal(number, usual)

    @contextmanager
    def cancelling(self) -> Iterator[None]:
        """Have Ctrl-C cancel the block, inside of trio's run; one from before does so at once."""
        with trio.CancelScope() as scope:
            token = trio.lowlevel.current_trio_token()
            self._cancel = lambda: token.run_sync_soon(scope.cancel)
            if self.has_struck:
                scope.cancel()
            try:
                yield
            finally:
                self._cancel = None

    def _strike(self, _number: int, _frame: Any) -> None:
        is_first, self.has_struck = not self.has_struck, True
        if _IS_BLOCKING.get() or not is_first:
            raise KeyboardInterrupt
        if self._cancel is not None:
            self._cancel()
