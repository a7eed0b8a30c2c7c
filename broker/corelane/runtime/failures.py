"""What stops a broker from starting or serving, as a sentence with its exit code."""

from typing import Final

EXIT_OK: Final = 0
EXIT_PORT: Final = 69
"""An address could not be bound (EX_UNAVAILABLE)."""
EXIT_BUG: Final = 70
"""An assertion or an unforeseen error of ours (EX_SOFTWARE)."""
EXIT_SYSTEM: Final = 71
"""The operating system refused a process, a socket or a limit (EX_OSERR)."""
EXIT_DATA_DIRECTORY: Final = 73
"""The data directory cannot be made, read or written, or is of another version (EX_CANTCREAT)."""
EXIT_DISK: Final = 74
"""A write or sync of the write-ahead log failed (EX_IOERR)."""
EXIT_IN_USE: Final = 75
"""Another broker holds the data directory (EX_TEMPFAIL)."""
EXIT_CONFIG: Final = 78
"""The configuration asks for something that cannot be done (EX_CONFIG)."""


class StartError(Exception):
    """An operator's mistake or a machine's refusal: what happened, why, what to do next.

    Never raised for our own bugs; those are assertions.
    """

    def __init__(self, what: str, why: str, next_step: str, code: int) -> None:
        assert all((what, why, next_step))
        assert code != EXIT_OK
        super().__init__(f"{what}: {why}. {next_step}")
        self.what = what
        self.why = why
        self.next_step = next_step
        self.code = code

    @property
    def sentence(self) -> str:
        """Return what happened and why, ended as a sentence is."""
        end = "" if self.why[-1] in ".?!" else "."
        return f"{self.what}: {self.why}{end}"
