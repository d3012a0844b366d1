"""The template plugin as a stranger would use it: built, installed by pip, and chosen by name only.

A fresh virtual environment gets the wheels of gigq and of the template, and beside them three plugins
that are broken in three ways. Third-party packages are lent to it from the environment of the tests,
without anything of gigq's, so that nothing is downloaded.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "plugins" / "template"
#: Distributions that are wrong, each in its own way: the source of the module that their entry point names.
WRONG = {
    "broken": "raise ImportError('libbroken.so is not here')\n",
    "thief": """
        from gigq.hookspecs import SerializerSpec, hookimpl

        @hookimpl
        def gigq_serializers():
            return {"json": SerializerSpec("gigq_thief:Json", "another JSON")}
    """,
    "future": """
        from gigq.hookspecs import ExecutorSpec, hookimpl

        @hookimpl
        def gigq_executors():
            return {"future": ExecutorSpec("gigq_future:Executor", "from later", contract=99)}
    """,
}
PYPROJECT = """
    [build-system]
    requires = ["hatchling"]
    build-backend = "hatchling.build"
    [project]
    name = "gigq-{name}"
    version = "0.1"
    [project.entry-points.gigq]
    {name} = "gigq_{name}"
    [tool.hatch.build.targets.wheel]
    include = ["gigq_{name}.py"]
"""


SUBMIT = """
    from gigq import Job, JobQueue
    from work import double

    with JobQueue() as queue:
        print(queue.submit(Job("double", double, {"x": 21})))
"""
RUN = """
    import sys
    from gigq import JobQueue, Worker

    if __name__ == "__main__":
        with JobQueue() as queue, Worker() as worker:
            worker.run_until_empty()
            result = queue.result(sys.argv[1], timeout=10)
            print(type(queue.storage).__name__, worker._executor_name, result)
"""


@dataclass
class Installed:
    """A virtual environment, and a folder to work in."""

    bin: Path
    folder: Path

    def run(self, *command, **variables):
        """Run one of its programs in the folder; give back what happened."""
        options = self._options(variables)
        return subprocess.run(self._command(command), check=False, timeout=100, **options)

    def begin(self, *command, **variables):
        return subprocess.Popen(self._command(command), **self._options(variables))

    def gigq(self, *arguments, **variables):
        """What a command of `gigq --json` answers; it must succeed."""
        done = self.run("gigq", "--json", *arguments, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def python(self, source, **variables):
        """What a script prints; it must succeed."""
        done = self.run("python", "-c", dedent(source), **variables)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _command(self, command):
        return [str(self.bin / command[0]), *command[1:]]

    def _options(self, variables):
        clean = {name: text for name, text in os.environ.items()
                 if not name.startswith(("GIGQ_", "PYTHON", "COV_"))}  # fmt: skip
        return {
            "cwd": self.folder, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE,
            "env": {**clean, "NO_COLOR": "1", "COLUMNS": "200", **variables},
        }  # fmt: skip


def dedent(source):
    lines = source.strip("\n").split("\n")
    margin = len(lines[0]) - len(lines[0].lstrip())
    return "\n".join(line[margin:] for line in lines) + "\n"


def build_wheel(project, target):
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)],
        cwd=project, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def lend_packages(folder, place):
    """Make the third-party packages of this environment importable there, and nothing of gigq's."""
    folder.mkdir()
    for kind in ("purelib", "platlib"):
        for each in Path(sysconfig.get_paths()[kind]).iterdir():
            link = folder / each.name
            if "gigq" not in each.name and not each.name.endswith(".pth") and not link.exists():
                link.symlink_to(each)
    (place / "lent.pth").write_text(f"{folder}\n")


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The virtual environment with everything installed; made once."""
    base = tmp_path_factory.mktemp("template")
    wheels = base / "wheels"
    build_wheel(ROOT, wheels)
    build_wheel(TEMPLATE, wheels)
    for name, source in WRONG.items():
        project = base / name
        project.mkdir()
        (project / "pyproject.toml").write_text(dedent(PYPROJECT.format(name=name)))
        (project / f"gigq_{name}.py").write_text(dedent(source))
        build_wheel(project, wheels)
    venv.create(base / "venv", with_pip=False, symlinks=os.name != "nt")
    scripts = base / "venv" / ("Scripts" if os.name == "nt" else "bin")
    python = scripts / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index",
           "--no-deps", "--disable-pip-version-check", *map(str, sorted(wheels.iterdir()))]  # fmt: skip
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    lend_packages(base / "lent", Path(found.stdout.strip()))
    return scripts


@pytest.fixture
def installed(environment, tmp_path):
    """A folder of its own, with a module of jobs in it."""
    (tmp_path / "work.py").write_text("def double(x):\n    return x * 2\n")
    return Installed(environment, tmp_path)


def listed(installed):
    found = installed.gigq("plugins", "list")["plugins"]
    return {(each["kind"], each["name"], each["distribution"]): each for each in found}


class TestAnInstalledPlugin:
    def test_comes_from_the_wheels(self, installed):
        """Not from the checkout: what is missing in a wheel is missing here."""
        places = installed.python(
            "import gigq.plugins, gigq_template; print(gigq.__file__, gigq_template.__file__)"
        )

        assert str(ROOT) not in places

    def test_finds_what_is_no_code_in_the_wheel_too(self, installed):
        """Types for checkers, the schema for editors."""
        found = installed.python("""
            from importlib.resources import files
            print([(files("gigq") / name).is_file() for name in ("py.typed", "config.schema.json")])
        """)

        assert found == "[True, True]\n"

    def test_is_listed_with_its_distribution(self, installed):
        found = listed(installed)

        for kind, name in [("storage", "jsonfile"), ("serializer", "zjson"), ("executor", "solo")]:
            each = found[kind, name, "gigq-template"]
            assert (each["status"], each["version"], each["problem"]) == ("ok", "0.1.0", "")

    def test_is_chosen_by_name_in_a_program(self, installed):
        """JobQueue and Worker know nothing but the names."""
        (installed.folder / "main.py").write_text(
            dedent("""
            from gigq import Job, JobQueue, Worker
            from work import double

            if __name__ == "__main__":
                with JobQueue("jsonfile://jobs.json", serializer="zjson") as queue:
                    job_id = queue.submit(Job("double", double, {"x": 21}))
                    with Worker("jsonfile://jobs.json", serializer="zjson", executor="solo") as worker:
                        worker.run_until_empty()
                    print(type(queue.storage).__name__, queue.result(job_id, timeout=10))
        """)
        )

        done = installed.run("python", "main.py")

        assert done.stdout == "JsonFileStorage 42\n", done.stderr
        assert "zjson" in (installed.folder / "jobs.json").read_text()

    @pytest.mark.parametrize("where", ["gigq.toml", "pyproject.toml", "environment"])
    def test_is_chosen_by_settings(self, installed, where):
        """From one process to the next, through files or the environment, by the same names."""
        chosen = {"db": "jsonfile://jobs.json", "serializer": "zjson", "executor": "solo"}
        table = "\n".join(f'{name} = "{value}"' for name, value in chosen.items())
        variables: dict[str, str] = {}
        if where == "gigq.toml":
            (installed.folder / "gigq.toml").write_text(table)
        elif where == "pyproject.toml":
            (installed.folder / "pyproject.toml").write_text(f"[tool.gigq]\n{table}\n")
        else:
            variables = {f"GIGQ_{name.upper()}": value for name, value in chosen.items()}

        job_id = installed.python(SUBMIT, **variables).strip()
        (installed.folder / "main.py").write_text(dedent(RUN))
        done = installed.run("python", "main.py", job_id, **variables)

        assert done.stdout == "JsonFileStorage solo 42\n", done.stderr
        assert "zjson" in (installed.folder / "jobs.json").read_text()

    def test_serves_one_command_after_the_other(self, installed):
        """The file is one process's at a time, and commands that follow each other are just that."""
        chosen = {"GIGQ_DB": "jsonfile://jobs.json", "GIGQ_SERIALIZER": "zjson"}

        job_id = installed.gigq("submit", "work:double", "--param", "x=21", **chosen)["id"]
        assert installed.run("gigq", "run", **chosen).returncode == 0

        assert installed.gigq("result", job_id, **chosen)["result"] == 42

    @pytest.mark.timeout(240)
    def test_keeps_its_promises(self, installed):
        """`gigq plugins check` runs the whole suite on each part, at once to save time."""
        in_memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # syncing costs nothing there
        with TemporaryDirectory(prefix="gigq-check-", dir=in_memory) as folder:
            targets = ("zjson", f"jsonfile://{folder}/jobs.json", "solo")
            running = [installed.begin("gigq", "plugins", "check", target) for target in targets]
            outputs = ["".join(process.communicate(timeout=200)) for process in running]
            left = list(Path(folder).iterdir())

        for process, output in zip(running, outputs, strict=True):
            assert process.returncode == 0, output
            assert "promises kept" in output
        assert left == []


class TestABrokenNeighbour:
    def test_that_fails_on_import_is_named_with_the_reason(self, installed):
        each = listed(installed)["plugin", "broken", "gigq-broken"]

        assert each["status"] == "broken"
        assert "ImportError: libbroken.so is not here" in each["problem"]
        refused = self.refusal(installed, "JobQueue('jobs.db', serializer='broken')")
        assert refused.startswith("PluginBroken: Plugin 'broken' (gigq_broken) of gigq-broken 0.1")
        assert "GIGQ_BLOCK=broken" in refused

    def test_that_claims_a_taken_name_gets_nothing(self, installed):
        found = listed(installed)

        assert found["serializer", "json", "gigq"]["status"] == "ok"
        claim = found["serializer", "json", "gigq-thief"]
        assert claim["status"] == "conflict"
        assert "gigq-thief 0.1 must choose another" in claim["problem"]
        assert installed.python(
            "from gigq import JobQueue; print(type(JobQueue('a.db').serializer).__module__)"
        ) == "gigq.serializers.json\n"  # fmt: skip

    def test_of_another_contract_version_is_refused_by_its_name(self, installed):
        each = listed(installed)["executor", "future", "gigq-future"]

        assert each["status"] == "incompatible"
        refused = self.refusal(installed, "Worker('jobs.db', executor='future')")
        assert refused.startswith("PluginIncompatible: executor 'future' of gigq-future 0.1")
        assert "version 99" in refused

    def test_costs_nothing_to_users_of_built_in_parts(self, installed):
        """Nobody's module is loaded for a name of ours, and installed metadata is not even read; a
        submit of plain data loads no types that it does not hold."""
        loaded = installed.python("""
            import sys
            from gigq import plugins
            made = plugins.serializer("json")
            made.loads(made.dumps({"x": [1, "two"]}))
            plugins.storage("memory://")
            plugins.accepted(None)
            unwanted = {"gigq_broken", "gigq_thief", "gigq_template", "importlib.metadata", "msgpack",
                        "cloudpickle", "pickle", "decimal", "zoneinfo", "uuid"}
            print(sorted(unwanted & set(sys.modules)))
        """)

        assert loaded == "[]\n"

    def test_can_be_blocked(self, installed):
        shown = installed.gigq("plugins", "list", GIGQ_BLOCK="broken,thief")["plugins"]

        status = {each["distribution"]: each["status"] for each in shown}
        assert (status["gigq-broken"], status["gigq-thief"]) == ("blocked", "blocked")

    def test_is_reported_by_info_with_a_failing_exit_code(self, installed):
        done = installed.run("gigq", "plugins", "info", "broken")

        assert done.returncode == 1
        assert "libbroken.so is not here" in done.stdout

    @staticmethod
    def refusal(installed, expression):
        """Type and message of what an expression raises."""
        return installed.python(f"""
            from gigq import JobQueue, Worker
            try:
                {expression}
            except Exception as error:
                print(f"{{type(error).__name__}}: {{error}}")
        """)
