"""What Ctrl-C does during a conversation: it cancels, and raises only in what blocks."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

import trio

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
    """Turns the first Ctrl-C into a cancellation.

    As an exception it would strike in whichever task happens to run: what that one was about to
    clean up is told to others as errors, and theirs are shown instead. A second Ctrl-C raises
    wherever it strikes, should the cancellation hang.
    """

    def __init__(self) -> None:
        self.has_struck = False
        self._cancel: Callable[[], None] | None = None

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """Take Ctrl-C over in the block, unless somebody else has (shells let it be ignored)."""
        if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            yield
            return
        signal.signal(signal.SIGINT, self._strike)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)

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
