"""Plugins that listen to what happens, or add commands; whoever raises is logged and disturbs nobody."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gigq.plugins.registry import known

if TYPE_CHECKING:
    import click


def observers(hook: str) -> Callable[..., Any] | None:
    """A caller of all plugins that listen to a hook, or None when nobody does: ask once, then test it.

    A listener that raises is logged with its name and disturbs neither the others nor the caller.
    Only `gigq_run`, which wraps what happens inside, comes as pluggy's own caller of all wrappers:
    `call_extra([run], {"call": call})` gives the report of `run`.
    """
    registry = known()
    listeners = registry.listeners(hook)
    if not listeners:
        return None
    if hook == "gigq_run":
        wrappers: Callable[..., Any] = registry.manager().hook.gigq_run
        return wrappers

    def tell(**arguments: Any) -> None:
        for name, listener in listeners:
            try:
                listener(**arguments)
            except Exception:
                _complain(name, hook)

    return tell


def _complain(name: str, hook: str) -> None:
    import logging

    logging.getLogger("gigq.plugins").exception("plugin %s raised in %s", name, hook)


def commands(group: click.Group) -> None:
    """Let plugins add their commands to the command line."""
    tell = observers("gigq_commands")
    if tell is not None:
        tell(group=group)
