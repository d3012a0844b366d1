"""The one door through which storages, serializers and executors come in, ours too.

Who asks gets a part by name, URL, `module:Class`, class or instance. A built-in name is answered from
`gigq.builtins` alone: no metadata of installed distributions is read for it. Any other name reads the
entry points of the group `gigq`: those of that very name are loaded first, so that a broken plugin
costs nothing to the users of another; then all.

Who has the right to a name: a built-in; else the plugin whose entry point has that name; else whoever
claims it. Two of the same right are a conflict for whoever asks. Each plugin is loaded and asked by
itself, so that what is wrong with one is remembered with its distribution and disturbs nobody else.
"""

# The contracts are abstract classes, and the door asks for subclasses of them by name.
# mypy: disable-error-code="type-abstract"

from __future__ import annotations

import importlib
import os
import re
import threading
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from gigq import config
from gigq.clock import SYSTEM_CLOCK, Clock
from gigq.contracts import CONTRACT_VERSION
from gigq.errors import (
    ConfigError,
    InvalidSettingType,
    PluginBroken,
    PluginConflict,
    PluginError,
    PluginIncompatible,
    UnknownPlugin,
)
from gigq.text import plain, shown

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    import click
    import pluggy

    from gigq.contracts.executor import Executor
    from gigq.contracts.serializer import Serializer
    from gigq.contracts.storage import Storage
    from gigq.hookspecs import Spec

GROUP = "gigq"
Kind = Literal["storage", "serializer", "executor"]
Part = TypeVar("Part")

_HOOKS: Mapping[Kind, str] = {
    "storage": "gigq_storages",
    "serializer": "gigq_serializers",
    "executor": "gigq_executors",
}
_NAME = re.compile(r"[a-z][a-z0-9.-]*")
_SIGNED = "signed"
_ONLY_LOOKING: Mapping[str, bytes] = {}
#: Serializers that are read where nothing else was said, as far as they are safe.
_READ_BY_DEFAULT = ("json", "msgpack")
#: Names that people type, and the distribution that brings them.
_DISTRIBUTIONS = {
    "postgresql": "gigq-postgres",
    "postgres": "gigq-postgres",
    "redis": "gigq-redis",
    "rediss": "gigq-redis",
    "valkey": "gigq-redis",
    "valkeys": "gigq-redis",
    "unix": "gigq-redis",
    "dask": "gigq-dask",
}


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """One line of `gigq plugins list`.

    Attributes:
        kind: `storage`, `serializer`, `executor`; `plugin` for one that only listens or adds commands,
            and for one that could not be asked what it brings.
        name: What it is chosen by; of a `plugin`, its entry point's name.
        target: Where the class lives, as `module:Class`.
        status: `ok`, `broken`, `conflict`, `incompatible`, `missing` (something it needs is not
            installed) or `blocked`.
        problem: What is wrong and what to do; empty when nothing is.
    """

    kind: str
    name: str
    distribution: str
    version: str
    target: str
    summary: str
    status: str = "ok"
    problem: str = ""


@dataclass(frozen=True, slots=True)
class _Source:
    """A plugin: the entry point that brought it."""

    name: str
    distribution: str
    version: str
    target: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}".rstrip()


@dataclass(frozen=True, slots=True)
class _Claim:
    """A plugin says that it brings the part of this name."""

    kind: Kind
    name: str
    spec: Spec
    source: _Source

    @property
    def is_incompatible(self) -> bool:
        return self.spec.contract != CONTRACT_VERSION

    def why_incompatible(self) -> str:
        newer = self.spec.contract > CONTRACT_VERSION
        return (
            f"{self.kind} {self.name!r} of {self.source} was made for version {self.spec.contract} of"
            f" gigq's contracts; this gigq has version {CONTRACT_VERSION}.\n"
            f"Upgrade {'gigq' if newer else self.source.distribution}: pip install --upgrade"
            f" {'gigq' if newer else self.source.distribution}"
        )

    def missing(self) -> list[str]:
        """Modules that it needs and that are not installed."""
        return [module for module in self.spec.requires if not _is_installed(module)]

    def why_missing(self) -> str:
        wanted = self.spec.install or self.source.distribution
        return (
            f"{self.kind} {self.name!r} of {self.source} needs {', '.join(self.missing())}, which is"
            f" not installed.\nInstall it: pip install {_quoted(wanted)}"
        )


@dataclass(slots=True)
class _Plugin:
    """A plugin that was asked what it brings, or what went wrong when it was."""

    source: _Source
    claims: list[_Claim] = field(default_factory=list)
    hooks: tuple[str, ...] = ()
    problem: str = ""
    cause: BaseException | None = None

    def error(self) -> PluginBroken:
        error = PluginBroken(self.problem)
        error.__cause__ = self.cause
        return error


class _Registry:
    """What is installed, as far as it had to be looked at; one per process."""

    def __init__(self, blocked: frozenset[str]) -> None:
        self.blocked = blocked
        self._lock = threading.RLock()
        self._manager: pluggy.PluginManager | None = None
        self._entry_points: list[EntryPoint] | None = None
        self._loaded: dict[str, _Plugin] = {}
        self._builtins: _Plugin | None = None

    # --- finding -------------------------------------------------------------------------------

    def find(self, kind: Kind, name: str) -> _Claim:
        """The claim that has the right to the name, ready to be loaded."""
        with self._lock:
            claim = None if name in self.blocked else self._owner(kind, name)
            if claim is None:
                raise self._unknown(kind, name)
        if claim.is_incompatible:
            raise PluginIncompatible(claim.why_incompatible())
        if claim.missing():
            raise PluginBroken(claim.why_missing())
        return claim

    def _owner(self, kind: Kind, name: str) -> _Claim | None:
        own = _claims_of(self.builtins(), kind, name)
        if own:
            return own[0]
        namesakes = [self._load(each) for each in self._installed() if each.name == name]
        claims = [claim for plugin in namesakes for claim in _claims_of(plugin, kind, name)]
        broken = [plugin for plugin in namesakes if plugin.problem]
        if not claims and broken:
            raise broken[0].error()
        if not claims:
            claims = [
                claim for plugin in self.everyone() for claim in _claims_of(plugin, kind, name)
            ]
        if len(claims) > 1:
            raise PluginConflict(_why_conflict(claims))
        return claims[0] if claims else None

    def builtins(self) -> _Plugin:
        """Our own plugin; one without claims when it is blocked."""
        if self._builtins is None:
            source = _Source("builtins", "gigq", _our_version(), "gigq.builtins")
            if self._is_blocked(source):
                self._builtins = _Plugin(source)
            else:
                self._builtins = self._ask(source, lambda: importlib.import_module("gigq.builtins"))
        return self._builtins

    def everyone(self) -> list[_Plugin]:
        """All plugins that are installed and not blocked, the built-ins first."""
        with self._lock:
            others = [self._load(entry_point) for entry_point in self._installed()]
            return [self.builtins(), *others]

    def hidden(self) -> list[_Source]:
        """Plugins that are blocked as a whole."""
        sources = [self.builtins().source, *(_source(each) for each in self._scanned())]
        return [source for source in sources if self._is_blocked(source)]

    def names(self, kind: Kind) -> list[str]:
        """All names of this kind that can be asked for."""
        found = {c.name for plugin in self.everyone() for c in plugin.claims if c.kind == kind}
        return sorted(found - self.blocked)

    def _is_blocked(self, source: _Source) -> bool:
        return bool(self.blocked & {source.name, source.distribution})

    # --- loading -------------------------------------------------------------------------------

    def manager(self) -> pluggy.PluginManager:
        if self._manager is None:
            import pluggy

            from gigq import hookspecs

            self._manager = pluggy.PluginManager(hookspecs.PROJECT)
            self._manager.add_hookspecs(hookspecs)
        return self._manager

    def _scanned(self) -> list[EntryPoint]:
        """Entry points of other distributions; reading them is the expensive part of it all."""
        if self._entry_points is None:
            from importlib.metadata import entry_points

            self._entry_points = [
                each for each in entry_points(group=GROUP) if each.value != "gigq.builtins"
            ]
        return self._entry_points

    def _installed(self) -> list[EntryPoint]:
        return [each for each in self._scanned() if not self._is_blocked(_source(each))]

    def _load(self, entry_point: EntryPoint) -> _Plugin:
        source = _source(entry_point)
        key = f"{source.distribution}:{source.name}"
        if key not in self._loaded:
            self._loaded[key] = self._ask(source, entry_point.load)
        return self._loaded[key]

    def _ask(self, source: _Source, load: Callable[[], object]) -> _Plugin:
        """Load a plugin, register it, and ask it what it brings. Never raises: a plugin's trouble is
        for whoever asks for that plugin."""
        plugin = _Plugin(source)
        try:
            module = load()
            if self.manager().is_registered(module):
                return plugin  # a second entry point of the same module
            self.manager().register(module, name=f"{source.distribution}:{source.name}")
            plugin.hooks = _hooks_of(self.manager(), module)
            for kind, hook in _HOOKS.items():
                plugin.claims += self._claims(module, kind, hook, source)
        except (Exception, SystemExit) as error:  # whatever a stranger's module does
            plugin.claims = []
            plugin.cause = error
            plugin.problem = (
                f"Plugin {source.name!r} ({source.target}) of {source} does not load:"
                f" {type(error).__name__}: {error}\n"
                f"Upgrade or remove {source.distribution}, or block it: GIGQ_BLOCK={source.name}"
            )
            self._forget(source)
        return plugin

    def _forget(self, source: _Source) -> None:
        name = f"{source.distribution}:{source.name}"
        if self.manager().has_plugin(name):
            self.manager().unregister(name=name)

    def _claims(self, module: object, kind: Kind, hook: str, source: _Source) -> Iterator[_Claim]:
        for answer in self._call_one(module, hook):
            if not isinstance(answer, Mapping):
                raise TypeError(
                    f"{hook} must return a mapping of names to specs, not {shown(answer)}"
                )
            for name, spec in answer.items():
                _check_claim(kind, hook, name, spec)
                yield _Claim(kind, name, spec, source)

    def _call_one(self, module: object, hook: str, **arguments: Any) -> list[Any]:
        """Call a hook of one plugin alone."""
        manager = self.manager()
        others = [other for other in manager.get_plugins() if other is not module]
        answers = manager.subset_hook_caller(hook, others)(**arguments)
        return answers if isinstance(answers, list) else [answers]

    # --- listening -----------------------------------------------------------------------------

    def listeners(self, hook: str) -> list[tuple[str, Callable[..., Any]]]:
        """Who implements the hook: the distribution, and a caller of its implementation alone."""
        self.everyone()
        manager = self.manager()
        found: list[tuple[str, Callable[..., Any]]] = []
        for implementation in getattr(manager.hook, hook).get_hookimpls():
            others = [each for each in manager.get_plugins() if each is not implementation.plugin]
            caller = manager.subset_hook_caller(hook, others)
            found.append((implementation.plugin_name, caller))
        return found

    # --- refusing ------------------------------------------------------------------------------

    def _unknown(self, kind: Kind, name: str) -> UnknownPlugin:
        what = "storage for URLs that begin with" if kind == "storage" else kind
        shown_name = f"'{name}://'" if kind == "storage" else shown(name)
        lines = [f"There is no {what} {shown_name}."]
        if name in self.blocked or self.builtins().source.name in self.blocked:
            blocked = config.setting("block")
            lines.append(f"Blocked are {', '.join(sorted(self.blocked))} ({blocked.origin}).")
        names = self.names(kind)
        near = get_close_matches(name, names, n=2)
        if near:
            lines.append(f"Did you mean {' or '.join(near)}?")
        lines.append(f"Known are {', '.join(names) or 'none'}.")
        if name in _DISTRIBUTIONS:
            lines.append(f"Install it: pip install {_DISTRIBUTIONS[name]}")
        broken = [plugin.problem for plugin in self.everyone() if plugin.problem]
        lines += [problem.partition("\n")[0] for problem in broken]
        return UnknownPlugin("\n".join(lines))


def _claims_of(plugin: _Plugin, kind: Kind, name: str) -> list[_Claim]:
    return [claim for claim in plugin.claims if claim.kind == kind and claim.name == name]


def _check_claim(kind: Kind, hook: str, name: object, spec: object) -> None:
    from gigq import hookspecs

    wanted = {
        "storage": hookspecs.StorageSpec,
        "serializer": hookspecs.SerializerSpec,
        "executor": hookspecs.ExecutorSpec,
    }[kind]
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            f"{hook} brings the name {shown(name)}; a name has lower-case letters, digits, '.' and '-'"
        )
    if not isinstance(spec, wanted):
        raise TypeError(f"{hook} brings {shown(spec)} for {name!r}; it must be a {wanted.__name__}")
    if not re.fullmatch(r"[\w.]+:[\w.]+", spec.target):
        raise ValueError(f"{hook} says that {name!r} is {spec.target!r}; it must be 'module:Class'")


def _hooks_of(manager: pluggy.PluginManager, module: object) -> tuple[str, ...]:
    """Names of the hooks that a plugin implements; a name that is no hook's is a typing error."""
    callers = manager.get_hookcallers(module) or ()
    for caller in callers:
        if caller.has_spec() or any(each.optionalhook for each in caller.get_hookimpls()):
            continue
        hooks = [name for name, known in vars(manager.hook).items() if known.has_spec()]
        near = get_close_matches(caller.name, hooks, n=1)
        guess = f"; did it mean {near[0]}?" if near else ""
        raise AttributeError(f"there is no hook {caller.name}{guess}")
    return tuple(sorted(caller.name for caller in callers))


def _why_conflict(claims: Sequence[_Claim]) -> str:
    first = claims[0]
    owners = " and ".join(f"{claim.source} ({claim.source.target})" for claim in claims)
    return (
        f"{first.kind} {first.name!r} is claimed by {owners}.\n"
        f"Uninstall one, or block it: GIGQ_BLOCK={claims[-1].source.distribution}"
    )


def _source(entry_point: EntryPoint) -> _Source:
    distribution = entry_point.dist
    name = distribution.metadata["Name"] if distribution else "an unnamed distribution"
    version = distribution.version if distribution else ""
    return _Source(entry_point.name, name, version, entry_point.value)


def _our_version() -> str:
    """Of the distribution `gigq`; read by whoever shows it, for it costs a search."""
    return ""


def _is_installed(module: str) -> bool:
    from importlib.util import find_spec

    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _quoted(requirement: str) -> str:
    """As a shell takes it."""
    return f"'{requirement}'" if "[" in requirement or ">" in requirement else requirement


# --- the one registry of this process ---------------------------------------------------------------

_registry: _Registry | None = None
_registry_lock = threading.Lock()


def _known() -> _Registry:
    """The registry; a new one when what is blocked has changed."""
    global _registry  # noqa: PLW0603 - what is installed is a fact about the process
    blocked = frozenset(config.setting("block").value)
    with _registry_lock:
        if _registry is None or _registry.blocked != blocked:
            _registry = _Registry(blocked)
        return _registry


def reset() -> None:
    """Forget what was found: the next look-up reads the installed distributions anew."""
    global _registry  # noqa: PLW0603
    with _registry_lock:
        _registry = None


# --- choosing a part --------------------------------------------------------------------------------


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
    kind = _class("storage", url.partition("://")[0].lower(), Contract)
    return _made("storage", url, Contract, lambda: kind.from_url(url, clock=clock))


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
    inner = _part("serializer", choice, Contract)
    if signing_keys and not inner.name.startswith(f"{_SIGNED}+"):
        signed: Any = _class("serializer", _SIGNED, Contract)
        return _made("serializer", _SIGNED, Contract, lambda: signed(inner, signing_keys))
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
    registry = _known()
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
        kind: Any = _class("executor", choice.partition("://")[0].lower(), Contract)
        return _made("executor", choice, Contract, lambda: kind(choice))
    return _part("executor", choice, Contract)


# --- making it --------------------------------------------------------------------------------------


def _part(kind: Kind, choice: object, contract: type[Part]) -> Part:
    """A part by name, `module:Class`, class or object."""
    if isinstance(choice, contract):
        return choice
    if isinstance(choice, type) and issubclass(choice, contract):
        made: Any = choice
        return _made(kind, choice.__qualname__, contract, made)
    if isinstance(choice, str):
        found: Any = (
            _dotted(kind, choice, contract) if ":" in choice else _class(kind, choice, contract)
        )
        return _made(kind, choice, contract, found)
    raise InvalidSettingType(
        f"{kind} is {shown(choice)}, of type {type(choice).__name__}.\n"
        f"Give a name such as {_EXAMPLES[kind]!r}, a subclass of {contract.__name__}, or an object of"
        " one."
    )


_EXAMPLES: Mapping[Kind, str] = {"storage": "jobs.db", "serializer": "json", "executor": "thread"}


def _class(kind: Kind, name: str, contract: type[Part]) -> type[Part]:
    """The class that a plugin brings under this name."""
    if not name.strip():
        raise ConfigError(f"{kind} is an empty text. Give a name such as {_EXAMPLES[kind]!r}.")
    claim = _known().find(kind, name)
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
    except (ImportError, AttributeError, ValueError) as error:
        raise UnknownPlugin(
            f"There is no {kind} {target!r}: {error}.\n"
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


def _made(kind: Kind, choice: str, contract: type[Part], make: Callable[[], object]) -> Part:
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


# --- events and commands ----------------------------------------------------------------------------


def observers(hook: str) -> Callable[..., Any] | None:
    """A caller of all plugins that listen to a hook, or None when nobody does: ask once, then test it.

    A listener that raises is logged with its name and disturbs neither the others nor the caller.
    Only `gigq_run`, which wraps what happens inside, comes as pluggy's own caller of all wrappers:
    `call_extra([run], {"call": call})` gives the report of `run`.
    """
    registry = _known()
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


# --- showing ----------------------------------------------------------------------------------------


def listing() -> list[PluginInfo]:
    """Everything that is installed, in order of kind and name, with what is wrong with each."""
    registry = _known()
    plugins = registry.everyone()
    infos = [_info(registry, claim, plugins) for plugin in plugins for claim in plugin.claims]
    infos += [_plugin_info(plugin) for plugin in plugins if _stands_alone(plugin)]
    infos += [
        PluginInfo("plugin", source.name, source.distribution, _version(source), source.target, "",
                   "blocked", f"Blocked by {config.setting('block').origin}.")
        for source in registry.hidden()
    ]  # fmt: skip
    order = ["storage", "serializer", "executor", "plugin"]
    return sorted(infos, key=lambda info: (order.index(info.kind), info.name, info.distribution))


def _stands_alone(plugin: _Plugin) -> bool:
    return bool(plugin.problem) or (not plugin.claims and bool(plugin.hooks))


def _plugin_info(plugin: _Plugin) -> PluginInfo:
    source = plugin.source
    return PluginInfo(
        "plugin", source.name, source.distribution, _version(source), source.target,
        ", ".join(plugin.hooks), "broken" if plugin.problem else "ok", plugin.problem,
    )  # fmt: skip


def _info(registry: _Registry, claim: _Claim, plugins: Sequence[_Plugin]) -> PluginInfo:
    status, problem = _verdict(registry, claim, plugins)
    source = claim.source
    return PluginInfo(
        claim.kind, claim.name, source.distribution, _version(source), claim.spec.target,
        claim.spec.summary, status, problem,
    )  # fmt: skip


def _verdict(registry: _Registry, claim: _Claim, plugins: Sequence[_Plugin]) -> tuple[str, str]:
    rivals = [
        other for plugin in plugins for other in _claims_of(plugin, claim.kind, claim.name)
        if other is not claim
    ]  # fmt: skip
    stronger = [other for other in rivals if _right(other) > _right(claim)]
    if claim.name in registry.blocked:
        return "blocked", f"Blocked by {config.setting('block').origin}."
    if stronger:
        return "conflict", (
            f"The name {claim.name!r} belongs to {stronger[0].source}, which goes on serving it;"
            f" {claim.source} must choose another."
        )
    if [other for other in rivals if _right(other) == _right(claim)]:
        return "conflict", _why_conflict([claim, *rivals])
    if claim.is_incompatible:
        return "incompatible", claim.why_incompatible()
    if claim.missing():
        return "missing", claim.why_missing()
    return "ok", ""


def _right(claim: _Claim) -> int:
    if claim.source.target == "gigq.builtins":
        return 2
    return 1 if claim.source.name == claim.name else 0


def _version(source: _Source) -> str:
    if source.target != "gigq.builtins":
        return source.version
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("gigq")
    except PackageNotFoundError:
        return ""


__all__ = [
    "PluginError", "PluginInfo", "accepted", "commands", "executor", "listing", "observers", "reset",
    "serializer", "signing_keys", "storage",
]  # fmt: skip
