"""Who says that he brings what: plugins, their claims to names, and what is wrong with a claim."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from gigq.contracts import CONTRACT_VERSION
from gigq.errors import PluginBroken
from gigq.text import shown

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from gigq.hookspecs import Spec

Kind = Literal["storage", "serializer", "executor"]

#: What each kind of part is asked for by.
HOOKS: Mapping[Kind, str] = {
    "storage": "gigq_storages",
    "serializer": "gigq_serializers",
    "executor": "gigq_executors",
}
#: The module that brings our own.
BUILTINS = "gigq.builtins"
_NAME = re.compile(r"[a-z][a-z0-9.-]*")


@dataclass(frozen=True, slots=True)
class Source:
    """A plugin: the entry point that brought it."""

    name: str
    distribution: str
    version: str
    target: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}".rstrip()


@dataclass(frozen=True, slots=True)
class Claim:
    """A plugin says that it brings the part of this name."""

    kind: Kind
    name: str
    spec: Spec
    source: Source

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
class Plugin:
    """A plugin that was asked what it brings, or what went wrong when it was."""

    source: Source
    claims: list[Claim] = field(default_factory=list)
    hooks: tuple[str, ...] = ()
    problem: str = ""
    cause: BaseException | None = None

    def error(self) -> PluginBroken:
        error = PluginBroken(self.problem)
        error.__cause__ = self.cause
        return error


def claims_of(plugin: Plugin, kind: Kind, name: str) -> list[Claim]:
    """What a plugin claims under this name: one at most, unless it is confused."""
    return [claim for claim in plugin.claims if claim.kind == kind and claim.name == name]


def check_claim(kind: Kind, hook: str, name: object, spec: object) -> None:
    """Refuse what a hook answered when it cannot be meant; the error says what it must be.

    Raises:
        TypeError, ValueError: For `Registry`, which tells the plugin's user.
    """
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


def why_conflict(claims: Sequence[Claim]) -> str:
    """The message for whoever asks for a name that several claim with the same right."""
    first = claims[0]
    owners = " and ".join(f"{claim.source} ({claim.source.target})" for claim in claims)
    return (
        f"{first.kind} {first.name!r} is claimed by {owners}.\n"
        f"Uninstall one, or block it: GIGQ_BLOCK={claims[-1].source.distribution}"
    )


def source_of(entry_point: EntryPoint) -> Source:
    """Where an entry point comes from, as messages name it."""
    distribution = entry_point.dist
    name = distribution.metadata["Name"] if distribution else "an unnamed distribution"
    version = distribution.version if distribution else ""
    return Source(entry_point.name, name, version, entry_point.value)


def right(claim: Claim) -> int:
    """How good a claim to its name is: ours, that of the plugin of that name, anybody's."""
    if claim.source.target == BUILTINS:
        return 2
    return 1 if claim.source.name == claim.name else 0


def _is_installed(module: str) -> bool:
    from importlib.util import find_spec

    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _quoted(requirement: str) -> str:
    """As a shell takes it."""
    return f"'{requirement}'" if "[" in requirement or ">" in requirement else requirement
