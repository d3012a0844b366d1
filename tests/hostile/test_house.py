"""What keeps the code safe when nobody looks: ruff's S rules, their exceptions, and the audit."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from gigq import plugins
from tests.hostile import audit
from tests.hostile.coverage_guided import TARGETS, seeds

ROOT = Path(__file__).parents[2]
OURS = [
    *(ROOT / "gigq").rglob("*.py"), *(ROOT / "plugins").rglob("*.py"),
    *(ROOT / "benchmarks").rglob("*.py"), *(ROOT / "examples").rglob("*.py"),
]  # fmt: skip
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["ruff"]["lint"]
_NOQA = re.compile(r"#\s*(?:ruff:\s*)?noqa\b:?(?P<codes>[A-Z0-9, ]*)(?P<reason>.*)")


def exceptions():
    """Each `noqa` in what is shipped or shown: file, line, codes, and what follows them."""
    for path in OURS:
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            if found := _NOQA.search(line):
                yield (
                    f"{path.relative_to(ROOT)}:{number}",
                    found["codes"].strip(" ,"),
                    found["reason"],
                )


class TestSecurityRules:
    def test_are_on(self):
        """ruff's S (flake8-bandit), for everything."""
        assert "S" in CONFIG["select"]
        assert not [
            code for code in CONFIG["ignore"] if code.startswith("S") and code[1:2].isdigit()
        ]

    def test_hold_for_all_that_is_shipped(self):
        """No file of gigq's is left out, but for the asserts of the suite that others run as tests."""
        left_out = {
            pattern: [code for code in codes if re.fullmatch(r"S\d*", code)]
            for pattern, codes in CONFIG["per-file-ignores"].items()
        }
        shipped = {p: codes for p, codes in left_out.items() if p.startswith("gigq") and codes}
        assert shipped == {"gigq/conformance/**": ["S101"]}
        everything = {pattern for pattern, codes in left_out.items() if "S" in codes}
        assert everything == {"tests/**"}

    @pytest.mark.parametrize(
        ("place", "codes", "reason"),
        [each for each in exceptions() if re.search(r"\bS\d", each[1])],
    )
    def test_have_a_reason_for_each_exception(self, place, codes, reason):
        """On the line itself: `# noqa: S301 - written by our own parent`."""
        assert re.match(r"\s*-\s+\S.{4,}", reason), f"{place}: noqa {codes} says no reason"

    def test_have_no_exception_without_a_code(self):
        """A bare `noqa` would hide everything."""
        assert [place for place, codes, _ in exceptions() if not codes] == []


class TestAudit:
    def test_looks_at_all_that_is_needed(self):
        """What gigq declares, and what that needs in turn."""
        found = audit.installed()

        assert {"click", "cloudpickle", "msgpack", "pluggy", "rich", "pygments"} <= {
            name.lower() for name in found
        }
        assert "pytest" not in found

    @pytest.mark.parametrize(
        ("answer", "said", "status", "tells"),
        [
            ("", "ConnectionError: no route", 2, "could not be asked: ConnectionError: no route"),
            ("<html>", "", 2, "could not be asked"),
            ('{"dependencies": []}', "", 2, "Nothing was looked up"),
            ({"name": "a", "skip_reason": "not found"}, "", 2, "about a"),
            ({"name": "a", "version": "1", "vulns": []}, "", 0, "No vulnerability is known of a 1"),
            ({"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}, "", 1,
             "a 1: CVE-1 (fixed in 2)"),
        ],
    )  # fmt: skip
    def test_is_no_success_when_nothing_is_known(self, answer, said, status, tells):
        """A database that cannot be reached, or does not know a package, says so and fails."""
        if isinstance(answer, dict):
            answer = json.dumps({"dependencies": [answer]})

        text, code = audit.judge(answer, said)

        assert code == status
        assert tells in text

    def test_is_a_verb_and_a_group(self):
        """`./dev audit` and `./dev fuzz`, each with the group of what it needs."""
        groups = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["dependency-groups"]
        dev = (ROOT / "dev").read_text("utf-8")

        for verb in ("audit", "fuzz"):
            assert groups[verb]
            assert f"verb_{verb}() {{ #: " in dev
            assert f"need {verb}" in dev


class TestCoverageGuidedFuzzing:
    @pytest.mark.parametrize("name", TARGETS)
    def test_starts_from_what_gigq_writes(self, name):
        """No coverage shows the way through a parser in C, to what lies behind it."""
        found = seeds(name)

        assert found
        for seed in found:
            TARGETS[name](seed)
            if name in ("json", "msgpack"):
                plugins.serializer(name).loads(seed)

    @pytest.mark.parametrize("name", TARGETS)
    def test_targets_raise_nothing_by_themselves(self, name):
        """What atheris is given to start from: an exception of one would be a finding."""
        for data in (
            b"",
            b"\0",
            b"{}",
            b"\x80",
            b"gigq1.default." + b"0" * 64 + b".1",
            b"a = 1",
            b"\xff" * 9,
        ):
            TARGETS[name](data)
