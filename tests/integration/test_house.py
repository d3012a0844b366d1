"""The house: its one door, its documents, and what it packs for others."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from benchmarks import __main__ as bench
from benchmarks import ours
from gigq import Job, JobQueue, Retry, Worker, config, errors, hookspecs
from gigq.conformance import ExecutorConformance, SerializerConformance
from gigq.conformance.kit import PROMISES, Conformance
from gigq.conformance.storage.base import StorageCases
from gigq.conformance.storage.lives import LifecycleCases
from gigq.contracts.executor import Executor
from gigq.contracts.storage import Capability

ROOT = Path(__file__).parents[2]
VERBS = [
    "demo", "test", "faults", "guards", "simulate", "audit", "fuzz", "defects", "lint", "types", "imports",
    "docs", "bench", "build", "changelog", "clean",
]  # fmt: skip
DOCUMENTS = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "examples").glob("*.md"),
    *(ROOT / "benchmarks").glob("*.md"),
]


def dev(*arguments, cwd=ROOT, **environment):
    return subprocess.run(
        [str(ROOT / "dev"), *arguments],
        cwd=cwd,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def tracked_files() -> list[Path]:
    """What the repository holds, where there is one; a source distribution has none."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


class TestDev:
    def test_alone_lists_its_verbs(self, tmp_path):
        """From any folder, one line each."""
        printed = dev(cwd=tmp_path).stdout

        for verb in VERBS:
            assert re.search(rf"^  {verb} +\S.{{10,}}$", printed, re.MULTILINE), verb
        assert len(printed.strip().splitlines()) == len(VERBS) + 2

    @pytest.mark.parametrize("verb", ["tset", "../x", "need"])
    def test_refuses_what_is_no_verb(self, verb):
        done = dev(verb)

        assert done.returncode == 1
        assert done.stderr == f"dev: no verb '{verb}'. ./dev alone lists them.\n"

    def test_says_when_there_is_no_python(self, tmp_path):
        """An old Python is passed over and the message says what to install."""
        old = tmp_path / "python3"
        old.write_text("#!/bin/sh\nexit 1\n")
        old.chmod(0o755)
        path = f"{tmp_path}:{tmp_path / 'bin'}"
        (tmp_path / "bin").mkdir()
        for tool in ("bash", "env", "dirname", "cksum", "sed", "grep", "ls"):
            (tmp_path / "bin" / tool).symlink_to(_which(tool))

        done = dev("demo", PATH=path, GIGQ_VENV=str(tmp_path / "venv"), PYTHON="")

        assert done.returncode == 1
        assert "no Python 3.11 or newer was found" in done.stderr
        assert not (tmp_path / "venv").exists()

    def test_leaves_a_folder_that_is_no_environment_alone(self, tmp_path):
        (tmp_path / "precious.txt").write_text("mine")

        done = dev("demo", GIGQ_VENV=str(tmp_path))

        assert done.returncode == 1
        assert "is no virtual environment" in done.stderr
        assert (tmp_path / "precious.txt").read_text() == "mine"

    def test_is_what_the_documents_name(self):
        """Every `./dev VERB` in a document is a verb."""
        text = "\n".join(path.read_text("utf-8") for path in DOCUMENTS)

        assert set(re.findall(r"\./dev ([a-z]+)\b", text)) - {"alone"} <= set(VERBS)


class TestCi:
    def test_runs_every_check(self):
        script = (ROOT / ".ci" / "run").read_text("utf-8")

        assert os.access(ROOT / ".ci" / "run", os.X_OK)
        for verb in ("lint", "types", "imports", "test"):
            assert f"./dev {verb}" in script

    @pytest.mark.parametrize(("status", "closing"), [(0, "= 3 passed in 1.00s ="),
                                                     (1, "= 1 failed, 2 passed in 1.00s =")])  # fmt: skip
    def test_prints_the_closing_line_last(self, tmp_path, status, closing):
        """And fails as the tests do, whatever is said after them."""
        (tmp_path / ".ci").mkdir()
        shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
        (tmp_path / "dev").write_text(
            f'#!/bin/sh\n[ "$1" = test ] || exit 0\necho "{closing}"\necho later\nexit {status}\n'
        )
        (tmp_path / "dev").chmod(0o755)

        done = subprocess.run(
            [tmp_path / ".ci" / "run"], capture_output=True, text=True, timeout=60, check=False
        )

        assert (done.returncode, done.stdout.splitlines()[-1]) == (status, closing), done.stderr

    def test_stops_at_a_check_that_fails(self, tmp_path):
        (tmp_path / ".ci").mkdir()
        shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
        (tmp_path / "dev").write_text('#!/bin/sh\n[ "$1" != types ]\n')
        (tmp_path / "dev").chmod(0o755)

        assert subprocess.run([tmp_path / ".ci" / "run"], timeout=60, check=False).returncode == 1

    def test_agrees_with_tox(self):
        text = (ROOT / "tox.ini").read_text("utf-8")

        for name in ("py{311,312,313}", "lint", "types", "imports", "docs", "wheel"):
            assert name in text
        for name in ("sqlite", "memory", "json", "msgpack", "cloudpickle"):
            assert f"{name}: gigq plugins check" in text


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel as a release would build it, without asking an index."""
    target = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "build",
            "--wheel",
            "--no-isolation",
            "--outdir",
            str(target),
            str(ROOT),
        ],
        check=True,
        capture_output=True,
    )
    (path,) = target.glob("*.whl")
    return zipfile.ZipFile(path)


class TestTheWheel:
    @pytest.mark.parametrize(
        "name",
        ["gigq/py.typed", "gigq/config.schema.json", "gigq/conformance/storage/__init__.py",
         "gigq/conformance/serializer.py", "gigq/conformance/executor.py", "gigq/cli/__init__.py"],
    )  # fmt: skip
    def test_holds(self, wheel, name):
        assert name in wheel.namelist()

    def test_holds_the_package_alone(self, wheel):
        tops = {name.partition("/")[0] for name in wheel.namelist()}

        assert tops == {"gigq", next(top for top in tops if top.endswith(".dist-info"))}
        assert not [name for name in wheel.namelist() if "__pycache__" in name]

    def test_needs_nothing_of_its_extras(self, wheel):
        """pytest and hypothesis come with the extra `conformance` alone."""
        (metadata,) = (name for name in wheel.namelist() if name.endswith("METADATA"))
        needed = [
            line
            for line in wheel.read(metadata).decode().splitlines()
            if line.startswith("Requires-Dist:") and "extra ==" not in line
        ]

        assert not [line for line in needed if "pytest" in line or "hypothesis" in line]


class TestTheBenchmarks:
    def test_measure_ours_beside_the_limit(self, tmp_path):
        """Every subject has both figures, in as many repetitions as were asked for."""
        tiny = bench.Sizes(repetitions=2, singles=5, bulk=10, drained=20, noticed=1, concurrency=2)

        rows = [each.measure(tmp_path, tiny.repetitions) for each in bench.subjects(tiny)]
        rows.append(bench.latency(tmp_path, tiny))

        assert [(len(row.gigq), len(row.sqlite)) for row in rows] == [(2, 2)] * 5
        assert all(value > 0 for row in rows for value in row.gigq + row.sqlite)
        assert len(bench.table(rows).splitlines()) == 7

    def test_give_no_figure_for_what_was_not_done(self, tmp_path):
        with (
            JobQueue(str(tmp_path / "empty.db")) as queue,
            pytest.raises(SystemExit, match="no figure is given"),
        ):
            ours.expect(queue, completed=3)

    def test_have_written_their_figures_down(self):
        text = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
        figures = text.partition(bench.BEGIN)[2].partition(bench.END)[0]

        assert (
            len(re.findall(r"^\| .*per second \| .* \| .* \| \d+% \|$", figures, re.MULTILINE)) == 4
        )
        for name in ("machine", "load when it began", "Python", "SQLite", "repetitions", "jobs"):
            assert f"- {name}: " in figures


class TestTheRepository:
    def test_names_no_machine(self):
        """Neither a path of somebody's machine nor the host of a package index."""
        pattern = re.compile(
            rb"/root/|/home/[a-z]+/|(?<![\w.])/work/|/Users/[a-z]+/|"
            rb"pypi\.org|pythonhosted|artifactory|index-url"
        )
        found = {
            str(path.relative_to(ROOT)): hit[0]
            for path in tracked_files()
            if path != Path(__file__)
            and path.suffix in {".py", ".md", ".toml", ".ini", ".txt", ".json", ".yml", ""}
            and (hit := pattern.search(path.read_bytes()))
        }

        assert found == {}

    def test_pins_what_judges_it(self):
        """A new release of a linter must not turn a green checkout red."""
        groups = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["dependency-groups"]

        assert [each for each in groups["lint"] if "==" in each] == groups["lint"]
        assert any(isinstance(each, str) and each.startswith("mypy==") for each in groups["types"])

    def test_has_a_fragment_for_what_is_not_released(self):
        kinds = {path.name.split(".")[-2] for path in (ROOT / "changes").glob("*.*.md")}

        assert kinds <= {"added", "changed", "fixed", "removed", "security"}


class TestTheDocuments:
    def test_lead_to_the_first_job_in_thirty_lines(self):
        """The README says what it is, shows two commands, and a program that fits on one screen."""
        text = (ROOT / "README.md").read_text("utf-8")
        first = re.search(r"```python\n(# first\.py.*?)```", text, re.DOTALL)[1]

        assert text.index("./dev demo") < text.index("./dev test") < text.index("# first.py")
        assert len(first.splitlines()) <= 30

    def test_hold_every_promise_with_its_number(self):
        """The same ten, in the README and in the architecture."""
        for path in (ROOT / "README.md", ROOT / "docs" / "architecture.md"):
            rows = re.findall(r"^\| (P\d+) \|", path.read_text("utf-8"), re.MULTILINE)
            assert rows == [label for label in PROMISES if label.startswith("P")], path.name

    def test_come_with_a_licence_and_ways_to_take_part(self):
        assert (ROOT / "LICENSE").read_text("utf-8").startswith("MIT License")
        for name in ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"):
            assert (ROOT / name).read_text("utf-8").startswith("# ")

    def test_have_a_heading_for_every_command(self):
        root = importlib.import_module("gigq.cli.root")
        page = (ROOT / "docs" / "command-line.md").read_text("utf-8")

        commands = [name for section in root.SECTIONS.values() for name in section]

        assert [name for name in commands if f"\n### gigq {name}\n" not in page] == []
        assert set(re.findall(r"^### gigq (\S+)$", page, re.MULTILINE)) == set(commands)

    def test_name_every_option_and_every_json_document(self):
        """What a command takes and answers stands on its page."""
        page = (ROOT / "docs" / "command-line.md").read_text("utf-8")
        commands = dict(_commands(importlib.import_module("gigq.cli.root").gigq))
        options = {
            option
            for command in commands.values()
            for parameter in command.params
            for option in (*parameter.opts, *parameter.secondary_opts)
            if option.startswith("--")
        }

        assert [name for name in sorted(options) if f"`{name}" not in page] == []
        documents = "".join(
            re.findall(r"^\| (`.*?) \|", page.partition("\n## JSON")[2], re.MULTILINE)
        )
        assert [name for name in commands if f"`{name}`" not in documents] == []

    @pytest.mark.parametrize(("made", "page"), [(Job, "job-queue"), (Retry, "job-queue"),
                                                (JobQueue, "job-queue"), (Worker, "workers")])  # fmt: skip
    def test_name_every_argument(self, made, page):
        """Of what users make: on the page about it."""
        text = (ROOT / "docs" / f"{page}.md").read_text("utf-8")
        text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
        told = set(re.findall(r"\w+", " ".join(re.findall(r"`[^`]+`", text))))

        assert [each for each in inspect.signature(made).parameters if each not in told] == []

    def test_name_what_plugins_can_declare(self):
        page = (ROOT / "docs" / "plugins.md").read_text("utf-8")
        flags = [name for name, value in vars(Executor).items() if isinstance(value, bool)]

        assert flags
        assert [name for name in [*Capability, *flags] if f"`{name}`" not in page] == []

    def test_name_what_a_conformance_class_can_say(self):
        """Each method and setting that is there to be overridden."""
        page = (ROOT / "docs" / "conformance.md").read_text("utf-8")
        kinds = (
            StorageCases,
            LifecycleCases,
            SerializerConformance,
            ExecutorConformance,
            Conformance,
        )
        settings = {
            name
            for kind in kinds
            for name, value in vars(kind).items()
            if not name.startswith(("_", "test_")) and not hasattr(value, "_fixture_function")
        } - {"declared", "asked", "assert_exact_or_refused"}  # for the cases themselves

        assert "make_storage" in settings
        assert [name for name in sorted(settings) if f"`{name}" not in page] == []

    def test_have_every_module_on_the_map(self):
        """A stranger finds each file that stands at the top, and the many of SQLite."""
        page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
        the_map = page.partition("## The map")[2].partition("\n## ")[0]
        told = set(re.findall(r"\w+", the_map)) | {"__init__", "__main__"}
        folders = [path.name for path in (ROOT / "gigq").glob("[a-z]*/")]
        modules = [
            path.stem
            for folder in (ROOT / "gigq", ROOT / "gigq" / "storages" / "sqlite")
            for path in folder.glob("*.py")
        ]

        assert [name for name in folders if f"`gigq/{name}/`" not in the_map] == []
        assert [name for name in modules if name not in told] == []

    def test_name_every_hook(self):
        page = (ROOT / "docs" / "plugins.md").read_text("utf-8")
        hooks = [name for name in vars(hookspecs) if name.startswith("gigq_")]

        assert hooks
        assert [name for name in hooks if f"| `{name}` |" not in page] == []
        assert set(re.findall(r"^\| `(gigq_\w+)` \|", page, re.MULTILINE)) == set(hooks)

    def test_name_every_setting_with_its_default(self):
        page = (ROOT / "docs" / "configuration.md").read_text("utf-8")

        for option in config.OPTIONS.values():
            row = re.search(
                rf"^\| `{option.name}` \| `{option.variable}` \| .*$", page, re.MULTILINE
            )
            assert row, option.name
            if option.default not in (None, ()):
                shown = (
                    f"{option.default:g}" if isinstance(option.default, float) else option.default
                )
                assert row[0].endswith(f"| `{shown}` |"), option.name

    def test_name_every_exit_code(self):
        exits = importlib.import_module("gigq.cli.exits")
        page = (ROOT / "docs" / "command-line.md").read_text("utf-8")

        told = re.findall(r"^\| (\d[\d, ]*) \|", page, re.MULTILINE)
        codes = {
            code for name, code in vars(exits).items() if name.isupper() and isinstance(code, int)
        }

        assert {int(code) for each in told for code in each.split(",")} == codes

    def test_have_the_pages_of_the_index(self):
        """No page is left out of the table of contents, and none is named that is not there."""
        for index in (ROOT / "docs" / "index.md", ROOT / "docs" / "decisions" / "index.md"):
            named = re.findall(r"^[a-z0-9/-]+$", index.read_text("utf-8"), re.MULTILINE)
            pages = {path.stem for path in index.parent.glob("*.md")} - {"index"}

            assert {name for name in named if "/" not in name} == pages
            assert all((index.parent / f"{name}.md").exists() for name in named)

    def test_keep_the_five_headings_of_a_decision(self):
        for path in (ROOT / "docs" / "decisions").glob("[0-9]*.md"):
            text = path.read_text("utf-8")
            heads = re.findall(
                r"^\*\*(Question\.|Measured\.|Decided\.|Costs\.|Look again\*\*)", text, re.M
            )
            assert len(heads) == 5, path.name
            assert text.startswith(f"# {path.name[:4]} "), path.name


class TestTheTreeOfErrors:
    def test_is_drawn_as_it_is(self):
        """Every error stands in the docstring's drawing, under its base, with its built-ins."""
        drawn = {}
        stack = []
        for line in errors.__doc__.splitlines():
            if found := re.match(r"([│ ]*)(?:├── |└── )?([A-Z]\w+)(?: \((\w+)\))? {2,}\S", line):
                depth = len(found[1]) // 4 + (1 if "──" in line else 0)
                stack[depth:] = [found[2]]
                drawn[found[2]] = (stack[depth - 1] if depth else None, found[3])
        defined = {
            name: kind
            for name, kind in vars(errors).items()
            if inspect.isclass(kind) and issubclass(kind, errors.GigqError)
        }

        assert set(drawn) == set(defined)
        for name, (base, builtin) in drawn.items():
            kinds = defined[name].__mro__[1:]
            assert base is None or any(kind.__name__ == base for kind in kinds), name
            assert builtin is None or any(kind.__name__ == builtin for kind in kinds), name

    def test_is_public(self):
        """Each can be caught as `gigq.NAME`."""
        gigq = importlib.import_module("gigq")
        names = [
            name
            for name, kind in vars(errors).items()
            if inspect.isclass(kind)
            and issubclass(kind, (errors.GigqError, errors.Fail, errors.Later))
        ]

        assert [name for name in names if not hasattr(gigq, name)] == []


def _commands(group, prefix=""):
    import click

    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from _commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def _which(tool: str) -> str:
    found = shutil.which(tool)
    assert found, tool
    return found
