"""The one door through which storages, serializers and executors come in, ours too.

Who asks gets a part by name, URL, `module:Class`, class or instance. A built-in name is answered from
`gigq.builtins` alone: no metadata of installed distributions is read for it. Any other name reads the
entry points of the group `gigq`: those of that very name are loaded first, so that a broken plugin
costs nothing to the users of another; then all.

Who has the right to a name: a built-in; else the plugin whose entry point has that name; else whoever
claims it. Two of the same right are a conflict for whoever asks. Each plugin is loaded and asked by
itself, so that what is wrong with one is remembered with its distribution and disturbs nobody else.
"""

# The contracts are abstract classes, and this door asks for subclasses of them by name.
# mypy: disable-error-code="type-abstract"

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gigq import config
from gigq.clock import SYSTEM_CLOCK, Clock
from gigq.errors import ConfigError, InvalidSettingType
from gigq.plugins.events import commands, observers
from gigq.plugins.inventory import PluginInfo, listing
from gigq.plugins.parts import choose_part, class_of, make_part
from gigq.plugins.registry import known, reset
from gigq.text import plain, shown

if TYPE_CHECKING:
    from gigq.contracts.executor import Executor
    from gigq.contracts.serializer import Serializer
    from gigq.contracts.storage import Storage

_SIGNED = "signed"
_ONLY_LOOKING: Mapping[str, bytes] = {}
#: Serializers that are read where nothing else was said, as far as they are safe.
_READ_BY_DEFAULT = ("json", "msgpack")


def storage(target: str | os.PathLike[str] | Storage, *, clock: Clock = SYSTEM_CLOCK) -> Storage:
    """The storage that a path, URL or object names; neither opened nor made yet.

    Raises:
        UnknownPlugin, PluginConflict, PluginIncompatible, PluginBroken: No plugin can serve it.
        ConfigError: The URL cannot be meant.
    """
    from gigq.contracts.storage import Storage as Contract

    if isinstance(target, Contract):
        return target
    url = _url(target)
    scheme = url.partition("://")[0].lower()
    kind = class_of("storage", scheme, Contract)
    # In messages the scheme alone: a URL may hold a password.
    return make_part("storage", scheme, Contract, lambda: kind.from_url(url, clock=clock))


def _url(target: object) -> str:
    """A path as the URL of a SQLite file; a URL as it is."""
    if isinstance(target, os.PathLike):
        target = os.fspath(target)
    if not isinstance(target, str):
        raise InvalidSettingType(
            f"The place of a queue is {shown(target)}, of type {type(target).__name__}.\n"
            "Give a path such as 'jobs.db', a URL such as 'memory://', or a Storage object."
        )
    if not target.strip() or not plain(target):
        raise ConfigError(
            f"The place of a queue is {shown(target)}, which names no file.\n"
            "Give a path such as 'jobs.db', or a URL."
        )
    if "://" in target:
        return target
    scheme = target.partition(":")[0]
    if ":" in target and known().serves(scheme):
        raise ConfigError(
            # No more of it: there may be a password in it.
            f"The place of a queue begins like a URL, with '{scheme}:', and has no '//'. Write"
            f" {scheme}://…, or ./{scheme}:… for a file of that name."
        )
    from urllib.parse import quote

    return f"sqlite:///{quote(target, safe='/:')}"


def serializer(
    choice: str | type[Serializer] | Serializer,
    *,
    signing_keys: Mapping[str, bytes] | None = _ONLY_LOOKING,
) -> Serializer:
    """The serializer that a name, class or object chooses; around it a signature when there are keys.

    One that runs code when it reads, and is not signed, is warned of once.

    Args:
        choice: `json`, `signed+msgpack`, `signed` (around JSON), `module:Class`, a class, an object.
        signing_keys: From `signing_keys()`; None when there are none. Left out, the serializer is only
            looked at, to see what it can carry: nothing is warned of.

    Raises:
        ConfigError: Signed without keys.
        UnknownPlugin, PluginConflict, PluginIncompatible, PluginBroken: No plugin can serve it.
    """
    from gigq.contracts.serializer import Serializer as Contract

    if isinstance(choice, str) and (choice == _SIGNED or choice.startswith(f"{_SIGNED}+")):
        if not signing_keys:
            raise ConfigError(
                f"Serializer {choice!r} needs a signing key, and none is set.\n"
                "Give signing_key=…, set GIGQ_SIGNING_KEY, or write signing_key in gigq.toml."
            )
        choice = choice.removeprefix(_SIGNED).removeprefix("+") or "json"
    inner = choose_part("serializer", choice, Contract)
    if signing_keys and not inner.name.startswith(f"{_SIGNED}+"):
        signed: Any = class_of("serializer", _SIGNED, Contract)
        return make_part("serializer", _SIGNED, Contract, lambda: signed(inner, signing_keys))
    if signing_keys is not _ONLY_LOOKING:
        _warn_of(inner)
    return inner


def accepted(
    choices: str | type[Serializer] | Serializer | Sequence[Any] | None,
    *,
    signing_keys: Mapping[str, bytes] | None = None,
) -> dict[str, Serializer]:
    """What a queue or worker reads: the stored name of each serializer, and the serializer.

    Args:
        choices: One or several; None for the safe built-in ones.
        signing_keys: With keys, only signed payloads are read.
    """
    if choices is None:
        wanted: Sequence[Any] = [name for name in _READ_BY_DEFAULT if _has_builtin(name)]
    elif isinstance(choices, str) or not isinstance(choices, Collection):
        wanted = [choices]
    else:
        wanted = list(choices)
    made = [serializer(choice, signing_keys=signing_keys) for choice in wanted]
    return {each.name: each for each in made}


_warned: set[str] = set()


def _warn_of(chosen: Serializer) -> None:
    """Say once what it means to read pickles that anybody may have written."""
    name = chosen.name
    if chosen.safe or name.startswith(f"{_SIGNED}+") or name in _warned:
        return
    _warned.add(name)
    warnings.warn(
        f"Serializer {name!r} runs code when it reads: whoever can write to the queue's storage can"
        " run anything in its workers.\n"
        "Give the queue and its workers the same signing_key=… (or GIGQ_SIGNING_KEY).",
        stacklevel=4,
    )


def _has_builtin(name: str) -> bool:
    registry = known()
    return name not in registry.blocked and any(
        claim.name == name for claim in registry.builtins().claims if claim.kind == "serializer"
    )


def signing_keys(
    key: str | bytes | Mapping[str, str | bytes] | None,
) -> dict[str, bytes] | None:
    """Signing keys by id, the one that signs first; None when there is none.

    Args:
        key: One key, whose id is `default`; or ids and keys, of which the first signs and all verify.
    """
    if key is None:
        return None
    checked = config.setting("signing_key", key).value
    keys = dict(checked) if isinstance(checked, Mapping) else {"default": checked}
    return {
        key_id: secret.encode("utf-8", "surrogateescape") if isinstance(secret, str) else secret
        for key_id, secret in keys.items()
    }


def executor(choice: str | type[Executor] | Executor) -> Executor:
    """The executor that a name, URL (`dask://host:8786`), class or object chooses, not started yet.

    Raises:
        UnknownPlugin, PluginConflict, PluginIncompatible, PluginBroken: No plugin can serve it.
    """
    from gigq.contracts.executor import Executor as Contract

    if isinstance(choice, str) and "://" in choice:
        scheme = choice.partition("://")[0].lower()
        kind: Any = class_of("executor", scheme, Contract)
        return make_part("executor", scheme, Contract, lambda: kind(choice))
    return choose_part("executor", choice, Contract)


__all__ = [
    "PluginInfo", "accepted", "commands", "executor", "listing", "observers", "reset", "serializer",
    "signing_keys", "storage",
]  # fmt: skip
