"""Functions of scripts: referred to by file, found again by a worker in another process."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading

import pytest

from gigq import functions
from gigq.errors import FunctionNotFound, InvalidFunction


@pytest.fixture
def script(tmp_path):
    """Write a script and give its path."""

    def write(text, name="jobs_script.py"):
        path = tmp_path / name
        path.write_text(textwrap.dedent(text))
        return path

    return write


@pytest.fixture(autouse=True)
def _no_script_stays_loaded(monkeypatch):
    monkeypatch.setattr(functions, "_scripts", {})
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    module = sys.modules.get(functions.SCRIPT_NAME)
    if module is not None:
        del sys.modules[functions.SCRIPT_NAME]


def python(*arguments, cwd, text=None):
    ran = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, input=text,
        timeout=60, check=False,
    )  # fmt: skip
    return ran.stdout.strip() or ran.stderr.strip()


RUDE = """
class Rude(Exception):
    def __str__(self):
        raise ValueError("no")

    __repr__ = __str__

raise Rude
"""

REFER = """
from gigq.functions import reference, resolve

def work():
    return "done"

ref = reference(work)
print(ref, resolve(ref) is work)
"""


class TestAFunctionOfAScript:
    def test_is_referred_to_by_its_file(self, script, tmp_path):
        """The absolute one, whatever the script was called by; in its own process it is itself."""
        path = script(REFER)

        assert python(path.name, cwd=tmp_path) == f"{path}:work True"

    def test_of_a_module_run_by_name_keeps_that_name(self, script, tmp_path):
        """`python -m package.module`: any worker can import it."""
        (tmp_path / "package").mkdir()
        (tmp_path / "package" / "module.py").write_text(REFER)

        assert python("-m", "package.module", cwd=tmp_path) == "package.module:work True"

    @pytest.mark.parametrize("way", ["-c", "-"])
    def test_that_no_file_holds_is_refused(self, tmp_path, way):
        """Of `python -c`, of a prompt or of standard input."""
        arguments = ["-c", REFER] if way == "-c" else ["-"]

        said = python(*arguments, cwd=tmp_path, text=None if way == "-c" else REFER)

        assert "no worker could find" in said
        assert 'serializer="cloudpickle"' in said

    def test_is_found_by_another_process(self, script):
        """Under another name than `__main__`, so that what is guarded does not run."""
        path = script("""
            from __future__ import annotations
            import sibling

            state = []

            def work(number: NoSuchName = 2):
                state.append(number)
                return [__name__, number * sibling.FACTOR, state]

            if __name__ == "__main__":
                raise SystemExit("this is for the script itself")
        """)
        script("FACTOR = 21", "sibling.py")

        work = functions.resolve(f"{path}:work")

        assert work() == ["__mp_main__", 42, [2]]
        assert functions.load_script(path).state == [2]
        assert functions.reference(work) == f"{path}:work"

    def test_without_a_guard_leaves_out_what_submits(self, script):
        """Only those statements and what builds on them: all functions are there."""
        path = script("""
            from gigq.functions import refuse_while_loading

            done = []

            def submit(job):
                refuse_while_loading("submitting jobs")
                done.append(job)
                return "id"

            def first():
                return done

            first_id = submit("first")
            print(first_id.upper())
            try:
                submit("careful")
            except Exception:
                done.append("an Exception")

            def second():
                return "second"

            after = "set"
        """)

        assert functions.resolve(f"{path}:first")() == []
        assert functions.resolve(f"{path}:second")() == "second"
        assert functions.load_script(path).after == "set"

    def test_is_loaded_once_for_all_threads(self, script):
        """Whoever comes first loads it; the others wait."""
        path = script("""
            import threading, time
            loads = globals().get("loads", [])
            loads.append(threading.get_ident())
            time.sleep(0.05)
            def work():
                return loads
        """)
        found = []
        threads = [
            threading.Thread(target=lambda: found.append(functions.resolve(f"{path}:work")))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(found) == 8
        assert len(set(found)) == 1
        assert len(found[0]()) == 1

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("def work(:", "cannot be read here"),
            ("raise ValueError('no settings')\ndef work(): pass", "ValueError: no settings"),
            ("import no_such_module_at_all", "no_such_module_at_all"),
            ("raise SystemExit(2)", r"sys\.exit\(\)"),
            (RUDE, "raised <Rude whose repr"),
        ],
    )
    def test_that_does_not_load_is_not_found(self, script, text, why):
        """The error says which script and what it raised; the next try loads it anew."""
        path = script(text)

        with pytest.raises(FunctionNotFound, match=why) as refused:
            functions.resolve(f"{path}:work")
        assert str(path) in str(refused.value)

        path.write_text("def work(): return 'mended'")
        assert functions.resolve(f"{path}:work")() == "mended"

    def test_that_only_the_script_itself_defines_is_not_found(self, script):
        path = script("if __name__ == '__main__':\n    def work(): pass")

        with pytest.raises(FunctionNotFound, match='under `if __name__ == "__main__"'):
            functions.resolve(f"{path}:work")

    def test_of_two_scripts_are_kept_apart(self, script):
        """One worker runs jobs of both."""
        one = script("def work(): return 1", "one.py")
        two = script("def work(): return 2", "two.py")

        assert functions.resolve(f"{one}:work")() == 1
        assert functions.resolve(f"{two}:work")() == 2
        assert functions.reference(functions.resolve(f"{two}:work")) == f"{two}:work"

    def test_can_be_allowed_by_its_file(self, script):
        """A script stands for the functions that it defines, as a module does."""
        path = script("from os import system\ndef work(): return 1")
        work, system = (functions.resolve(f"{path}:{name}") for name in ("work", "system"))

        functions.check_allowed(work, f"{path}:work", [str(path)])
        with pytest.raises(PermissionError):
            functions.check_allowed(system, f"{path}:system", [str(path)])


def test_a_function_made_by_hand_is_refused(tmp_path):
    """Its file may exist, but its name leads to something else."""
    namespace = {"__name__": __name__}
    exec("def made(): pass", namespace)

    with pytest.raises(InvalidFunction, match="is not this function"):
        functions.reference(namespace["made"])
