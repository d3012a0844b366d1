"""What an examination finds, and what a repair did: plain data, of one shape from every storage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that whoever looks after a queue should know.

    Attributes:
        id: What kind it is, for programs: lower-case words with hyphens. It keeps its meaning from
            version to version, while the sentences may change.
        what: One sentence, with the facts.
        cure: What to do; "" when there is nothing to do.
        wrong: Something is wrong; otherwise it is only worth knowing.
        fixable: `Storage.repair` cures it, or `Storage.recover` does.
        facts: The figures and names in it, as JSON can say them.
    """

    id: str
    what: str
    cure: str = ""
    wrong: bool = True
    fixable: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Repair:
    """What was done about a finding.

    Attributes:
        id: The finding's.
        what: One sentence: what was done, or what stood in the way.
        done: Whether it was done.
    """

    id: str
    what: str
    done: bool = True
