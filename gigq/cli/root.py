"""The command `gigq`: a list of names, and where each command lives.

Nothing of a command is imported before it is used, so that `gigq --help` and the first line of every
other command come at once. Commands of plugins are looked for only where they matter: in the help,
and for a name that is none of ours.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

from gigq.cli.command import Group, run
from gigq.cli.output import Output


@dataclass(frozen=True, slots=True)
class Lazy:
    """Where a command lives, and its line in the help."""

    target: str
    summary: str


SECTIONS: dict[str, dict[str, Lazy]] = {
    "Jobs": {
        "submit": Lazy("submitting:submit", "Submit a job."),
        "status": Lazy("watching:status", "Show where a job stands."),
        "show": Lazy("watching:show", "Show all about a job."),
        "list": Lazy("watching:list_jobs", "List jobs, newest first."),
        "result": Lazy("watching:result", "Print a job's result."),
        "wait": Lazy("watching:wait", "Wait until jobs have ended."),
        "why": Lazy("watching:why", "Say why a job does not run."),
        "cancel": Lazy("changing:cancel", "Cancel jobs."),
        "requeue": Lazy("changing:requeue", "Run ended jobs again."),
        "clear": Lazy("changing:clear", "Remove completed and cancelled jobs."),
    },
    "Workers": {
        "worker": Lazy("working:worker", "Run jobs until told to stop."),
        "run": Lazy("working:run", "Run jobs until none is left."),
        "workers": Lazy("working:workers", "List the workers that live."),
    },
    "Queues": {
        "stats": Lazy("watching:stats", "Count jobs by status."),
        "pause": Lazy("changing:pause", "Hand out no more jobs of a queue."),
        "resume": Lazy("changing:resume", "Hand out a paused queue's jobs again."),
        "export": Lazy("moving:export", "Write all jobs as JSON lines."),
        "import": Lazy("moving:import_jobs", "Store jobs that were exported."),
    },
    "Looking after": {
        "demo": Lazy("demo:demo", "See it work, a killed worker included."),
        "doctor": Lazy("doctor:doctor", "Look for what is wrong."),
        "config": Lazy("config:config", "Show each setting and its origin."),
        "plugins": Lazy("plugins:plugins", "List and check plugins."),
        "db": Lazy("db:db", "Check, copy and migrate the storage."),
        "completion": Lazy("completion:completion", "Print a shell's completion script."),
    },
}
_COMMANDS = {name: lazy for section in SECTIONS.values() for name, lazy in section.items()}


class Root(Group):
    """The commands by name, ours and the plugins'."""

    _plugins_asked = False

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        self._ask_plugins()
        return [*_COMMANDS, *sorted(self.commands)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        lazy = _COMMANDS.get(cmd_name)
        if lazy is not None:
            module, _, attribute = lazy.target.partition(":")
            found: click.Command = getattr(importlib.import_module(f"gigq.cli.{module}"), attribute)
            return found
        self._ask_plugins()
        return super().get_command(ctx, cmd_name)

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        formatter: click.HelpFormatter,
    ) -> None:
        for title, section in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, lazy.summary) for name, lazy in section.items()])
        self._ask_plugins()
        if self.commands:
            with formatter.section("From plugins"):
                rows = [
                    (name, self.commands[name].get_short_help_str())
                    for name in sorted(self.commands)
                ]
                formatter.write_dl(rows)

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Take a plugin's command, unless its name is taken: the first one stands."""
        chosen = name or cmd.name
        if chosen in _COMMANDS or chosen in self.commands:
            Output().note(f"Note: a plugin's command {chosen!r} was left out: the name is taken.")
            return
        super().add_command(cmd, name)

    def _ask_plugins(self) -> None:
        if not self._plugins_asked:
            self._plugins_asked = True
            from gigq import plugins

            plugins.commands(self)

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> None:
        """Run, and end the process with the exit code."""
        extra.pop("standalone_mode", None)
        sys.exit(run(self, args, prog_name, **extra))


@click.group(
    "gigq", cls=Root, hide_common=False, context_settings={"help_option_names": ["-h", "--help"]}
)
def gigq() -> None:
    """A job queue that starts with one file and that you never have to leave."""
