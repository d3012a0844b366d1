"""What is installed, as far as somebody had to look: plugins are found, loaded, and asked one by one."""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from gigq import config
from gigq.errors import PluginBroken, PluginConflict, PluginIncompatible, UnknownPlugin
from gigq.plugins.claims import (
    BUILTINS,
    HOOKS,
    Claim,
    Kind,
    Plugin,
    Source,
    check_claim,
    claims_of,
    source_of,
    why_conflict,
)
from gigq.text import shown

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    import pluggy

GROUP = "gigq"
#: Names that people type, and the distribution that is to bring them; none of these is released yet,
#: so that nobody is told to install a name that may be a stranger's.
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


class Registry:
    """What is installed, as far as it had to be looked at; one per process.

    Threads share it: whoever looks first loads, the others wait. `_lock` may be taken again by the
    thread that has it.
    """

    def __init__(self, blocked: frozenset[str]) -> None:
        self.blocked = blocked
        self._lock = threading.RLock()
        self._manager: pluggy.PluginManager | None = None
        self._entry_points: list[EntryPoint] | None = None
        self._loaded: dict[str, Plugin] = {}
        self._builtins: Plugin | None = None
        self._listeners: dict[str, list[tuple[str, Callable[..., Any]]]] = {}

    # --- finding -------------------------------------------------------------------------------

    def find(self, kind: Kind, name: str) -> Claim:
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

    def _owner(self, kind: Kind, name: str) -> Claim | None:
        own = claims_of(self.builtins(), kind, name)
        if own:
            return own[0]
        namesakes = [self._load(each) for each in self._installed() if each.name == name]
        claims = [claim for plugin in namesakes for claim in claims_of(plugin, kind, name)]
        broken = [plugin for plugin in namesakes if plugin.problem]
        if not claims and broken:
            raise broken[0].error()
        if not claims:
            claims = [
                claim for plugin in self.everyone() for claim in claims_of(plugin, kind, name)
            ]
        if len(claims) > 1:
            raise PluginConflict(why_conflict(claims))
        return claims[0] if claims else None

    def serves(self, scheme: str) -> bool:
        """Whether this is the scheme of a storage of ours, or of one that we know of."""
        return scheme in _DISTRIBUTIONS or bool(claims_of(self.builtins(), "storage", scheme))

    def builtins(self) -> Plugin:
        """Our own plugin; one without claims when it is blocked."""
        with self._lock:
            if self._builtins is None:
                source = Source("builtins", "gigq", "", BUILTINS)
                if self._is_blocked(source):
                    self._builtins = Plugin(source)
                else:
                    self._builtins = self._ask(source, lambda: importlib.import_module(BUILTINS))
            return self._builtins

    def everyone(self) -> list[Plugin]:
        """All plugins that are installed and not blocked, the built-ins first."""
        with self._lock:
            others = [self._load(entry_point) for entry_point in self._installed()]
            return [self.builtins(), *others]

    def hidden(self) -> list[Source]:
        """Plugins that are blocked as a whole."""
        sources = [self.builtins().source, *(source_of(each) for each in self._scanned())]
        return [source for source in sources if self._is_blocked(source)]

    def names(self, kind: Kind) -> list[str]:
        """All names of this kind that can be asked for."""
        found = {c.name for plugin in self.everyone() for c in plugin.claims if c.kind == kind}
        return sorted(found - self.blocked)

    def _is_blocked(self, source: Source) -> bool:
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
                each for each in entry_points(group=GROUP) if each.value != BUILTINS
            ]
        return self._entry_points

    def _installed(self) -> list[EntryPoint]:
        return [each for each in self._scanned() if not self._is_blocked(source_of(each))]

    def _load(self, entry_point: EntryPoint) -> Plugin:
        source = source_of(entry_point)
        key = f"{source.distribution}:{source.name}"
        if key not in self._loaded:
            self._loaded[key] = self._ask(source, entry_point.load)
        return self._loaded[key]

    def _ask(self, source: Source, load: Callable[[], object]) -> Plugin:
        """Load a plugin, register it, and ask it what it brings. Never raises: a plugin's trouble is
        for whoever asks for that plugin."""
        plugin = Plugin(source)
        try:
            module = load()
            if self.manager().is_registered(module):
                return plugin  # a second entry point of the same module
            self.manager().register(module, name=f"{source.distribution}:{source.name}")
            plugin.hooks = _hooks_of(self.manager(), module)
            for kind, hook in HOOKS.items():
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

    def _forget(self, source: Source) -> None:
        name = f"{source.distribution}:{source.name}"
        if self.manager().has_plugin(name):
            self.manager().unregister(name=name)

    def _claims(self, module: object, kind: Kind, hook: str, source: Source) -> Iterator[Claim]:
        for answer in self._caller(module, hook)():
            if not isinstance(answer, Mapping):
                raise TypeError(
                    f"{hook} must return a mapping of names to specs, not {shown(answer)}"
                )
            for name, spec in answer.items():
                check_claim(kind, hook, name, spec)
                yield Claim(kind, name, spec, source)

    # --- listening -----------------------------------------------------------------------------

    def listeners(self, hook: str) -> list[tuple[str, Callable[..., Any]]]:
        """Who implements the hook: `distribution:plugin`, and a caller of its implementation alone.
        Found once: each submit asks."""
        with self._lock:
            if hook not in self._listeners:
                self.everyone()
                implementations = getattr(self.manager().hook, hook).get_hookimpls()
                self._listeners[hook] = [
                    (each.plugin_name, self._caller(each.plugin, hook)) for each in implementations
                ]
            return self._listeners[hook]

    def _caller(self, module: object, hook: str) -> Callable[..., Any]:
        """Calls the hook in one plugin alone."""
        others = [other for other in self.manager().get_plugins() if other is not module]
        return self.manager().subset_hook_caller(hook, others)

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
            lines.append(
                f"{_DISTRIBUTIONS[name]} is to bring it: it is not installed, and no part of this gigq."
            )
        broken = [plugin.problem for plugin in self.everyone() if plugin.problem]
        lines += [problem.partition("\n")[0] for problem in broken]
        return UnknownPlugin("\n".join(lines))


def _hooks_of(manager: pluggy.PluginManager, module: object) -> tuple[str, ...]:
    """Names of the hooks that a plugin implements; a name that is no hook's is a typing error."""
    callers = manager.get_hookcallers(module) or ()
    for caller in callers:
        if caller.has_spec() or any(each.optionalhook for each in caller.get_hookimpls()):
            continue
        hooks = [name for name, hook in vars(manager.hook).items() if hook.has_spec()]
        near = get_close_matches(caller.name, hooks, n=1)
        guess = f"; did it mean {near[0]}?" if near else ""
        raise AttributeError(f"there is no hook {caller.name}{guess}")
    return tuple(sorted(caller.name for caller in callers))


# --- the one registry of this process ---------------------------------------------------------------

_registry: Registry | None = None
_registry_lock = threading.Lock()
_asked_from: tuple[str | None, str] | None = None


def known() -> Registry:
    """The registry; a new one when another set of names is blocked.

    Settings are read again only where they may have changed: the look at the files takes longer than
    all the rest, and a submit may ask for its serializer.
    """
    global _registry, _asked_from  # noqa: PLW0603 - what is installed is a fact about the process
    asked_from = (os.environ.get("GIGQ_BLOCK"), _working_directory())
    with _registry_lock:
        if _registry is None or asked_from != _asked_from:
            blocked = frozenset(config.setting("block").value)
            _asked_from = asked_from
            if _registry is None or _registry.blocked != blocked:
                _registry = Registry(blocked)
        return _registry


def _working_directory() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 - a path object costs more than the rest of the look
    except OSError:
        return ""  # removed under us


def reset() -> None:
    """Forget what was found: the next look-up reads the installed distributions anew."""
    global _registry  # noqa: PLW0603
    with _registry_lock:
        _registry = None
