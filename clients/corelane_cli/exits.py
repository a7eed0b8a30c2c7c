"""The exit codes of every command, as one table; the documents and tests are made from it."""

from typing import Final

from corelane.model.record import record

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
CANNOT_CONNECT: Final = 3
REFUSED: Final = 4
DAMAGED: Final = 5
TIMED_OUT: Final = 6
UNHEALTHY: Final = 10
ADDRESS: Final = 69
BUG: Final = 70
SYSTEM: Final = 71
DATA_DIRECTORY: Final = 73
DISK: Final = 74
IN_USE: Final = 75
CONFIGURATION: Final = 78
INTERRUPTED: Final = 130
READER_GONE: Final = 141


@record
class ExitCode:
    """What a number says to the shell, and the word for it in JSON errors."""

    number: int
    word: str
    meaning: str


EXIT_CODES: Final = (
    ExitCode(OK, "OK", "done"),
    ExitCode(FAILED, "FAILED", "it did not work; the message says why"),
    ExitCode(USAGE, "USAGE", "the command line was not understood"),
    ExitCode(CANNOT_CONNECT, "CANNOT_CONNECT", "no Kafka broker answered at the address"),
    ExitCode(REFUSED, "REFUSED", "the broker said no; JSON errors carry Kafka's name for it"),
    ExitCode(DAMAGED, "DAMAGED", "dump-log found damage in the log"),
    ExitCode(TIMED_OUT, "TIMED_OUT", "the broker did not answer in time"),
    ExitCode(UNHEALTHY, "UNHEALTHY", "cluster health found something wrong"),
    ExitCode(ADDRESS, "ADDRESS", "start: an address or port cannot be had"),
    ExitCode(BUG, "BUG", "a fault of Corelane; please report it"),
    ExitCode(SYSTEM, "SYSTEM", "start: the system refused a process, a socket or a limit"),
    ExitCode(DATA_DIRECTORY, "DATA_DIRECTORY", "the data directory cannot be used or read"),
    ExitCode(DISK, "DISK", "start: a write to the disk failed"),
    ExitCode(IN_USE, "IN_USE", "another broker holds the data directory"),
    ExitCode(CONFIGURATION, "CONFIGURATION", "the configuration cannot be used"),
    ExitCode(INTERRUPTED, "INTERRUPTED", "stopped by Ctrl-C"),
    ExitCode(READER_GONE, "READER_GONE", "the program that read the output went away"),
)

WORDS: Final = {row.number: row.word for row in EXIT_CODES}

assert [row.number for row in EXIT_CODES] == sorted(WORDS)


class CommandError(Exception):
    """Why a command failed, for people: what happened, why, and what to do next."""

    def __init__(self, exit_code: int, message: str, next_step: str, word: str = "") -> None:
        assert exit_code in WORDS
        assert exit_code != OK
        super().__init__(message)
        self.exit_code = exit_code
        self.message = message
        self.next_step = next_step
        self.word = word or WORDS[exit_code]


def table() -> str:
    """Return the table as the help shows it."""
    return "\n".join(f"{row.number:>5}  {row.meaning}" for row in EXIT_CODES)
