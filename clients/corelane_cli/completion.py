"""`corelane completion`, and what the shell is told while a command line is written."""

import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import click

from corelane_cli.options import BOOTSTRAP_DEFAULT, BOOTSTRAP_VARIABLE, format_option

if TYPE_CHECKING:
    from corelane_client.admin import Admin

VARIABLE: Final = "_CORELANE_COMPLETE"
"""What the shell's script sets to ask for words; click's name for the program `corelane`."""
WAIT_S_MAX: Final = 0.5
"""Somebody has pressed Tab: a broker that takes longer is not worth waiting for."""


_EPILOG = """\
\b
bash, in ~/.bashrc:  eval "$(corelane completion bash)"
zsh, in ~/.zshrc:    eval "$(corelane completion zsh)"
fish, in ~/.config/fish/completions/corelane.fish:
                     corelane completion fish | source
"""


@click.command(epilog=_EPILOG)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@format_option
@click.pass_context
def completion(ctx: click.Context, shell: str, output_format: str) -> None:
    """Print the script that lets a SHELL complete commands, options, names and settings."""
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    assert made is not None
    script = made(ctx.find_root().command, {}, "corelane", VARIABLE).source()
    if output_format == "json":
        from corelane_cli.output import show_json

        show_json({"shell": shell, "script": script})
    else:
        click.echo(script)


def topics(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the topics that begin so; none where the broker does not answer at once."""

    async def ask(admin: "Admin") -> list[str]:
        return [topic.name for topic in await admin.list_topics()]

    return _asked(ctx, param, incomplete, ask)


def groups(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the consumer groups that begin so."""

    async def ask(admin: "Admin") -> list[str]:
        return [group.name for group in await admin.list_groups()]

    return _asked(ctx, param, incomplete, ask)


def transactional_ids(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the transactional ids that begin so."""

    async def ask(admin: "Admin") -> list[str]:
        return [each.transactional_id for each in await admin.list_transactions()]

    return _asked(ctx, param, incomplete, ask)


def _asked(
    ctx: click.Context,
    param: click.Parameter,
    incomplete: str,
    ask: Callable[["Admin"], Awaitable[list[str]]],
) -> list[str]:
    """Return what the broker answers and begins so, without what is on the line already."""
    import trio

    from corelane_cli.exits import CommandError
    from corelane_cli.session import run
    from corelane_client.admin import Admin

    bootstrap: Any = ctx.params.get("bootstrap")
    if not bootstrap:
        bootstrap = os.environ.get(BOOTSTRAP_VARIABLE) or BOOTSTRAP_DEFAULT

    async def conversation() -> list[str]:
        with trio.move_on_after(WAIT_S_MAX):
            async with Admin(bootstrap) as admin:
                return await ask(admin)
        return []

    try:
        names = run(conversation)
    except (CommandError, OSError):
        return []  # the shell would show an error in the middle of the line
    chosen = ctx.params.get(param.name or "") or ()
    return [name for name in names if name.startswith(incomplete) and name not in chosen]


def setting_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the settings of brokers and topics that begin so."""
    from corelane.cluster.topic_config_keys import TOPIC_CONFIGS
    from corelane.model.config_keys import KEYS

    names = {key.name for key in KEYS} | {row.name for row in TOPIC_CONFIGS}
    return sorted(name for name in names if name.startswith(incomplete))


def topic_setting_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the settings of topics that begin so."""
    from corelane.cluster.topic_config_keys import TOPIC_CONFIGS

    return sorted(row.name for row in TOPIC_CONFIGS if row.name.startswith(incomplete))
