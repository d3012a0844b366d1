"""What `gigq plugins` shows: every part that is installed, and what is wrong with each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gigq import config
from gigq.plugins.claims import BUILTINS, Claim, Plugin, Source, claims_of, right, why_conflict
from gigq.plugins.registry import Registry, known


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


def listing() -> list[PluginInfo]:
    """Everything that is installed, in order of kind and name, with what is wrong with each."""
    registry = known()
    plugins = registry.everyone()
    infos = [_info(registry, claim, plugins) for plugin in plugins for claim in plugin.claims]
    infos += [_plugin_info(plugin) for plugin in plugins if _stands_alone(plugin)]
    infos += [
        PluginInfo("plugin", source.name, source.distribution, _version_of(source), source.target, "",
                   "blocked", f"Blocked by {config.setting('block').origin}.")
        for source in registry.hidden()
    ]  # fmt: skip
    order = ["storage", "serializer", "executor", "plugin"]
    return sorted(infos, key=lambda info: (order.index(info.kind), info.name, info.distribution))


def _stands_alone(plugin: Plugin) -> bool:
    return bool(plugin.problem) or (not plugin.claims and bool(plugin.hooks))


def _plugin_info(plugin: Plugin) -> PluginInfo:
    source = plugin.source
    return PluginInfo(
        "plugin", source.name, source.distribution, _version_of(source), source.target,
        ", ".join(plugin.hooks), "broken" if plugin.problem else "ok", plugin.problem,
    )  # fmt: skip


def _info(registry: Registry, claim: Claim, plugins: Sequence[Plugin]) -> PluginInfo:
    status, problem = _verdict(registry, claim, plugins)
    source = claim.source
    return PluginInfo(
        claim.kind, claim.name, source.distribution, _version_of(source), claim.spec.target,
        claim.spec.summary, status, problem,
    )  # fmt: skip


def _verdict(registry: Registry, claim: Claim, plugins: Sequence[Plugin]) -> tuple[str, str]:
    rivals = [
        other for plugin in plugins for other in claims_of(plugin, claim.kind, claim.name)
        if other is not claim
    ]  # fmt: skip
    stronger = [other for other in rivals if right(other) > right(claim)]
    if claim.name in registry.blocked:
        return "blocked", f"Blocked by {config.setting('block').origin}."
    if stronger:
        return "conflict", (
            f"The name {claim.name!r} belongs to {stronger[0].source}, which goes on serving it;"
            f" {claim.source} must choose another."
        )
    if [other for other in rivals if right(other) == right(claim)]:
        return "conflict", why_conflict([claim, *rivals])
    if claim.is_incompatible:
        return "incompatible", claim.why_incompatible()
    if claim.missing():
        return "missing", claim.why_missing()
    return "ok", ""


def _version_of(source: Source) -> str:
    """Our own is read here alone: to look it up takes longer than to find a built-in part."""
    if source.target != BUILTINS:
        return source.version
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("gigq")
    except PackageNotFoundError:
        return ""
