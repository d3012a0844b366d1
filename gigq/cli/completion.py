"""`gigq completion`: the script that lets a shell complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from gigq.cli.command import Shell, command, pass_shell

_SHELLS = ("bash", "zsh", "fish")


@command("completion", short_help="Print a shell's completion script.")
@click.argument("shell_name", metavar="bash|zsh|fish", type=click.Choice(_SHELLS))
@click.pass_context
@pass_shell
def completion(shell: Shell, ctx: click.Context, shell_name: str) -> None:
    """Print the completion script of a shell.

    \b
    bash:  eval "$(gigq completion bash)"   in ~/.bashrc
    zsh:   eval "$(gigq completion zsh)"    in ~/.zshrc
    fish:  gigq completion fish > ~/.config/fish/completions/gigq.fish
    """
    made = get_completion_class(shell_name)
    if made is None:
        raise click.UsageError(f"This version of click knows no completion for {shell_name}.")
    script = made(ctx.find_root().command, {}, "gigq", "_GIGQ_COMPLETE").source()
    document = {"shell": shell_name, "script": script}
    shell.out.answer(document, lambda: shell.out.raw(script + "\n"))
