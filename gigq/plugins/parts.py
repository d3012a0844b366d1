"""From a choice to a part: the class is found, checked against its contract, and made."""

# The contracts are abstract classes, and this door asks for subclasses of them by name.
# mypy: disable-error-code="type-abstract"

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from gigq.errors import ConfigError, InvalidSettingType, PluginBroken, UnknownPlugin
from gigq.plugins.claims import Kind
from gigq.plugins.registry import known
from gigq.text import shown

Part = TypeVar("Part")
_EXAMPLES: Mapping[Kind, str] = {"storage": "jobs.db", "serializer": "json", "executor": "thread"}


def choose_part(kind: Kind, choice: object, contract: type[Part]) -> Part:
    """A part by name, `module:Class`, class or object."""
    if isinstance(choice, contract):
        return choice
    if isinstance(choice, type) and issubclass(choice, contract):
        made: Any = choice
        return make_part(kind, choice.__qualname__, contract, made)
    if isinstance(choice, str):
        found: Any = (
            _dotted(kind, choice, contract) if ":" in choice else class_of(kind, choice, contract)
        )
        return make_part(kind, choice, contract, found)
    raise InvalidSettingType(
        f"{kind} is {shown(choice)}, of type {type(choice).__name__}.\n"
        f"Give a name such as {_EXAMPLES[kind]!r}, a subclass of {contract.__name__}, or an object of"
        " one."
    )


def class_of(kind: Kind, name: str, contract: type[Part]) -> type[Part]:
    """The class that a plugin brings under this name."""
    if not name.strip():
        raise ConfigError(f"{kind} is an empty text. Give a name such as {_EXAMPLES[kind]!r}.")
    claim = known().find(kind, name)
    try:
        found = _imported(claim.spec.target)
    except (Exception, SystemExit) as error:
        raise PluginBroken(
            f"{kind} {name!r} of {claim.source} does not load ({claim.spec.target}):"
            f" {type(error).__name__}: {error}\nUpgrade or remove {claim.source.distribution}."
        ) from error
    return _checked_class(kind, f"{claim.spec.target} of {claim.source}", found, contract)


def _dotted(kind: Kind, target: str, contract: type[Part]) -> type[Part]:
    """The class at `module:Class`, which needs no plugin around it."""
    try:
        found = _imported(target)
    except (Exception, SystemExit) as error:  # whatever importing it does
        raise UnknownPlugin(
            f"There is no {kind} {shown(target)}: {type(error).__name__}: {error!s:.300}.\n"
            "Write 'module:Class', and see that the module can be imported here."
        ) from error
    return _checked_class(kind, target, found, contract)


def _imported(target: str) -> object:
    module, _, path = target.partition(":")
    found: object = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    return found


def _checked_class(kind: Kind, where: str, found: object, contract: type[Part]) -> type[Part]:
    if isinstance(found, type) and issubclass(found, contract):
        return found
    raise PluginBroken(
        f"{where} is {shown(found)}, no {kind}: it must be a subclass of"
        f" {contract.__module__}.{contract.__name__}."
    )


def make_part(kind: Kind, choice: str, contract: type[Part], make: Callable[[], object]) -> Part:
    """What the class makes; its own errors about settings pass through."""
    try:
        made = make()
    except TypeError as error:
        raise PluginBroken(f"{kind} {choice!r} cannot be made: {error}") from error
    if not isinstance(made, contract):
        raise PluginBroken(
            f"{kind} {choice!r} made {shown(made)}, which is no {contract.__name__}."
        )
    return made
