"""What all commands share: errors as sentences or JSON, exit codes, broken pipes and Ctrl-C."""

import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import click
from click.exceptions import NoArgsIsHelpError

from corelane_cli import exits
from corelane_cli.exits import CommandError


class Application(click.Group):
    """A group whose commands return an exit code and raise CommandError.

    Errors go to stderr: as sentences, or with `--format json` as one line
    `{"error": {"code", "message", "next", "exit_code"}}`. Nothing of a failure is on stdout.
    """

    def main(self, *arguments: Any, **extra: Any) -> NoReturn:
        argv: Sequence[str] | None = arguments[0] if arguments else extra.get("args")
        wants_json = is_json_wanted(sys.argv[1:] if argv is None else argv)
        extra["standalone_mode"] = False
        try:
            code = super().main(*arguments, **extra)
        except NoArgsIsHelpError as error:
            code = _without_command(error, wants_json)
        except click.UsageError as error:
            code = show(_usage(error), wants_json)
        except click.ClickException as error:
            code = show(CommandError(exits.FAILED, error.format_message(), ""), wants_json)
        except CommandError as error:
            code = show(error, wants_json)
        except (click.Abort, KeyboardInterrupt):
            _leave_stopped_reader()
            code = exits.INTERRUPTED
        except _ReaderGoneError:
            code = _leave_pipe()
        except OSError as error:
            code = show(_system(error), wants_json)
        except Exception as error:  # noqa: BLE001 (the border to the shell, which knows none)
            code = show(_bug(error, wants_json), wants_json)
        sys.exit(code or exits.OK)

    def make_context(self, *arguments: Any, **extra: Any) -> click.Context:
        with _reader_watched():  # --help prints here
            return super().make_context(*arguments, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _reader_watched():
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result


class _ReaderGoneError(Exception):
    """The program that read the output went away."""


@contextmanager
def _reader_watched() -> Iterator[None]:
    """Tell a broken pipe apart: click would end with 1, which is what failures end with."""
    try:
        yield
    except BrokenPipeError as error:
        raise _ReaderGoneError from error


def is_json_wanted(argv: Sequence[str]) -> bool:
    """Return whether errors are JSON: known even when the rest of the line is not understood."""
    return "--format=json" in argv or ("--format", "json") in itertools.pairwise(argv)


def show(error: CommandError, wants_json: bool) -> int:
    """Write *error* to stderr and return its exit code."""
    if wants_json:
        import json

        fields = {
            "code": error.word,
            "message": error.message,
            "next": error.next_step,
            "exit_code": error.exit_code,
        }
        text = json.dumps({"error": fields})
    else:
        text = f"corelane: {error.message}"
        if error.next_step:
            text += f"\n{error.next_step}"
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
    return error.exit_code


def _usage(error: click.UsageError) -> CommandError:
    """Return click's complaint as ours."""
    context = error.ctx
    path = context.command_path if context else "corelane"
    return CommandError(exits.USAGE, error.format_message(), f"See `{path} --help`.")


def _without_command(error: NoArgsIsHelpError, wants_json: bool) -> int:
    """Show the help of a group that was named without one of its commands."""
    if wants_json:
        path = error.ctx.command_path if error.ctx else "corelane"
        return show(CommandError(exits.USAGE, "Missing command.", f"See `{path} --help`."), True)
    click.echo(error.format_message(), err=True)
    return exits.USAGE


def _system(error: OSError) -> CommandError:
    """Return what the system refused as ours."""
    why = (error.strerror or str(error)).lower()
    where = f"{error.filename}: " if error.filename else ""
    return CommandError(exits.FAILED, f"the system refused: {where}{why}", "")


def _bug(error: Exception, wants_json: bool) -> CommandError:
    """Return what should never happen, with the place; people see the whole way there too."""
    import traceback

    if not wants_json:
        traceback.print_exception(error)
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    what = f"a fault of corelane: {type(error).__name__}: {error}{place}"
    return CommandError(exits.BUG, what, "Please report it.")


def _leave_pipe() -> int:
    """Give the interpreter an output it can flush at its end, when the real one is gone."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
    return exits.READER_GONE


def _leave_stopped_reader() -> None:
    """Drop what nobody takes: the interpreter would wait for that at its end."""
    import select

    with suppress(OSError, ValueError):  # a test's stream has no descriptor
        if not select.select([], [sys.stdout.fileno()], [], 0)[1]:
            _leave_pipe()
