"""Settings: which origin wins, and what a mistake in one says. Real files, real environment."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from importlib.resources import files as package_files
from pathlib import Path

import pytest

from gigq import config
from gigq.config import OPTIONS, setting
from gigq.errors import ConfigError, InvalidSettingType
from tests.support import ROOT, as_nobody, folder_for_all


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty project folder that is the working directory, and an empty home."""
    for variable in [name for name in os.environ if name.startswith("GIGQ_")]:
        monkeypatch.delenv(variable)
    home = tmp_path / "home"
    folder = tmp_path / "project"
    folder.mkdir()
    home.mkdir()
    for variable in ("HOME", "USERPROFILE", "APPDATA", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(variable, str(home))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def user_file(project):
    path = project.parent / "home" / "gigq" / "config.toml"
    path.parent.mkdir()
    return path


class TestASetting:
    def test_has_a_default(self, project):
        assert setting("db").value == "gigq.db"
        assert setting("db").origin == "default"

    def test_comes_from_the_strongest_origin(self, project, user_file, monkeypatch):
        """Argument, environment, project's file, user's file, default: each beats those after it."""
        seen = [setting("concurrency")]
        user_file.write_text("concurrency = 2\n")
        seen.append(setting("concurrency"))
        (project / "gigq.toml").write_text("concurrency = 3\n")
        seen.append(setting("concurrency"))
        monkeypatch.setenv("GIGQ_CONCURRENCY", "4")
        seen.append(setting("concurrency"))
        seen.append(setting("concurrency", 5))

        assert [each.value for each in seen] == [1, 2, 3, 4, 5]
        assert [each.origin for each in seen] == [
            "default", str(user_file), str(project / "gigq.toml"), "environment GIGQ_CONCURRENCY",
            "argument",
        ]  # fmt: skip

    def test_each_origin_sets_only_what_it_names(self, project, user_file):
        user_file.write_text('executor = "process"\nlease = 60\n')
        (project / "gigq.toml").write_text("lease = 10\n")

        assert setting("executor").value == "process"
        assert setting("lease").value == 10.0

    def test_an_empty_variable_is_none(self, project, monkeypatch):
        """`GIGQ_DB= gigq list` is how a shell unsets one for a single command."""
        monkeypatch.setenv("GIGQ_DB", "")

        assert setting("db").origin == "default"

    @pytest.mark.parametrize(
        ("name", "text", "value"),
        [
            ("db", "redis://host/0", "redis://host/0"),
            ("worker_id", "w-1", "w-1"),
            ("polling_interval", "0.5", 0.5),
            ("lease", "90", 90.0),
            ("grace", "0", 0.0),
            ("queues", "mail, reports", ("mail", "reports")),
            ("allow", "app.jobs", ("app.jobs",)),
            ("accept", "json,cloudpickle", ("json", "cloudpickle")),
            ("block", "one, two", ("one", "two")),
            ("log_level", "DEBUG", "debug"),
            ("signing_key", "secret", "secret"),
            ("signing_key", '{"new": "a", "old": "b"}', {"new": "a", "old": "b"}),
        ],
    )
    def test_reads_the_environments_text(self, project, monkeypatch, name, text, value):
        monkeypatch.setenv(f"GIGQ_{name.upper()}", text)

        assert setting(name).value == value

    def test_takes_durations_and_objects_as_arguments(self, project):
        assert setting("lease", timedelta(minutes=1)).value == 60.0
        assert setting("executor", dict).value is dict
        assert setting("queues", {"a"}).value == ("a",)

    @pytest.mark.parametrize(
        ("name", "text", "said"),
        [
            ("concurrency", "0", "must be from 1"),
            ("concurrency", "many", "must be a whole number"),
            ("concurrency", "1.5", "must be a whole number"),
            ("lease", "0.5", "1 s or more"),
            ("polling_interval", "nan", "not a finite number"),
            ("polling_interval", "-1", "more than 0"),
            ("grace", "-1", "0 or more"),
            ("log_format", "xml", "one of text, json"),
            ("signing_key", "{oops", "JSON object of key ids"),
        ],
    )
    def test_refuses_what_cannot_be_used_and_says_where_it_was_set(
        self, project, monkeypatch, name, text, said
    ):
        monkeypatch.setenv(f"GIGQ_{name.upper()}", text)

        with pytest.raises(ConfigError, match=said) as refusal:
            setting(name)

        assert f"GIGQ_{name.upper()}" in str(refusal.value)

    @pytest.mark.parametrize(
        ("name", "value"),
        [("concurrency", True), ("concurrency", "2"), ("lease", "30"), ("queues", 7), ("queues", [7]),
         ("worker_id", 3), ("signing_key", 5), ("signing_key", {"a": 5})],
    )  # fmt: skip
    def test_refuses_an_argument_of_the_wrong_type(self, project, name, value):
        """An error of ours that is also a TypeError."""
        with pytest.raises(InvalidSettingType) as refusal:
            setting(name, value)

        assert isinstance(refusal.value, TypeError)
        assert str(refusal.value).startswith(name)

    @pytest.mark.parametrize("key", ["", b"", {}, {"a": ""}])
    def test_refuses_an_empty_key(self, project, key):
        with pytest.raises(ConfigError, match="signing_key"):
            setting("signing_key", key)

    def test_never_shows_a_secret(self, project):
        """Neither where settings are listed nor in a traceback."""
        secret = setting("signing_key", "s3cret")

        assert secret.shown == "***"
        assert "s3cret" not in repr(secret)
        assert setting("signing_key").shown is None


class TestAFile:
    def test_is_looked_for_from_here_upwards(self, project, monkeypatch):
        """The nearest one alone counts."""
        (project / "gigq.toml").write_text('executor = "process"\n')
        deep = project / "a" / "b"
        deep.mkdir(parents=True)
        monkeypatch.chdir(deep)

        assert setting("executor").value == "process"
        (project / "a" / "gigq.toml").write_text("lease = 9\n")
        assert setting("executor").value == "thread"

    def test_may_be_a_table_of_pyproject(self, project):
        (project / "pyproject.toml").write_text("[tool.gigq]\nconcurrency = 7\n")

        assert setting("concurrency").value == 7
        assert setting("concurrency").origin == str(project / "pyproject.toml")

    def test_passes_over_a_pyproject_of_somebody_else(self, project):
        """Without a table of ours it is not even read as TOML: its mistakes are not our affair."""
        (project / "pyproject.toml").write_text("[tool.other\n")
        (project.parent / "gigq.toml").write_text("concurrency = 7\n")

        assert setting("concurrency").value == 7

    @pytest.mark.parametrize(
        "text",
        ["[tool.gigq]\nlease = 9", "[ tool . gigq ]\nlease = 9", '[tool."gigq"]\nlease = 9',
         "[tool]\ngigq.lease = 9", "[tool]\ngigq = {lease = 9}", "tool.gigq.lease = 9",
         "tool = {gigq = {lease = 9}}"],
    )  # fmt: skip
    def test_is_found_however_pyproject_spells_the_table(self, project, text):
        (project / "pyproject.toml").write_text(f"# a comment\n{text}\n")

        assert setting("lease").value == 9.0

    def test_gigq_toml_beats_pyproject_beside_it(self, project):
        (project / "pyproject.toml").write_text("[tool.gigq]\nconcurrency = 7\n")
        (project / "gigq.toml").write_text("concurrency = 8\n")

        assert setting("concurrency").value == 8

    def test_is_read_again_when_it_changed(self, project):
        path = project / "gigq.toml"
        path.write_text("concurrency = 7\n")
        assert setting("concurrency").value == 7

        path.write_text("concurrency = 12\n")

        assert setting("concurrency").value == 12

    @pytest.mark.parametrize(
        ("db", "meant"),
        [
            ("jobs.db", "{project}/jobs.db"),
            ("/srv/jobs.db", "/srv/jobs.db"),
            (
                "sqlite:///jobs.db?durability=normal",
                "sqlite:///{project}/jobs.db?durability=normal",
            ),
            ("sqlite:////srv/jobs.db", "sqlite:////srv/jobs.db"),
            ("memory://x", "memory://x"),
        ],
    )
    def test_means_paths_from_where_it_is(self, project, monkeypatch, db, meant):
        """Commands in the project's subfolders use the same queue."""
        (project / "gigq.toml").write_text(f'db = "{db}"\n')
        (project / "sub").mkdir()
        monkeypatch.chdir(project / "sub")

        assert setting("db").value == meant.format(project=project)

    def test_says_what_it_does_not_know(self, project):
        """A typing error is an error for every setting, at once."""
        (project / "gigq.toml").write_text("concurency = 7\n")

        with pytest.raises(ConfigError) as refusal:
            setting("db")

        said = str(refusal.value)
        assert str(project / "gigq.toml") in said
        assert "Did you mean concurrency?" in said

    def test_says_the_line_that_is_no_toml(self, project):
        (project / "gigq.toml").write_text('db = "jobs.db"\nlease = \n')

        with pytest.raises(ConfigError, match=r"gigq\.toml is not valid TOML: .*line 2") as refusal:
            setting("db")

        assert "Correct that line" in str(refusal.value)

    @pytest.mark.parametrize(
        "line",
        ["concurrency = true", 'concurrency = "4"', "db = 5", "queues = [1]", 'lease = "long"',
         "serializer = ['json']", "executor = {a = 1}"],
    )  # fmt: skip
    def test_refuses_a_value_of_the_wrong_type(self, project, line):
        (project / "gigq.toml").write_text(f"{line}\n")

        with pytest.raises(ConfigError, match=r"gigq\.toml"):
            setting("log_level")

    def test_that_is_no_table_is_refused(self, project):
        (project / "pyproject.toml").write_text("[tool]\ngigq = 5\n")

        with pytest.raises(ConfigError, match="must be a table"):
            setting("db")

    def test_of_a_stranger_in_a_folder_for_everybody_is_passed_over(self, project, monkeypatch):
        """It names code to import, so /tmp/gigq.toml of another user must not count."""
        path = project / "gigq.toml"
        path.write_text('executor = "evil:Executor"\n')
        if ROOT:
            os.chown(path, 12345, 12345)
        else:  # who cannot give a file away can be somebody else than its owner
            monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        project.chmod(0o1777)
        assert setting("executor").value == "thread"

        project.chmod(0o755)
        assert setting("executor").value == "evil:Executor"

    def test_by_a_strangers_link_in_such_a_folder_is_passed_over(self, project, monkeypatch):
        """They chose which file of ours, or of the system's, would count here."""
        link = project / "gigq.toml"
        link.symlink_to("/etc/passwd")
        project.chmod(0o1777)
        assert config._is_trusted(link)

        if ROOT:
            os.chown(link, 12345, 12345, follow_symlinks=False)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)

        assert not config._is_trusted(link)

    def test_that_cannot_be_read_says_so(self, project):
        path = project / "gigq.toml"
        path.write_bytes(b"db = '\xff'\n")

        with pytest.raises(ConfigError, match="not valid TOML"):
            setting("db")

    def test_in_a_folder_that_may_not_be_entered_is_an_error(self, monkeypatch):
        """Nobody knows whether there are settings that were meant to count."""
        with folder_for_all() as place:
            (place / "closed" / "here").mkdir(parents=True)
            monkeypatch.chdir(place / "closed" / "here")
            setting("db")
            (place / "closed").chmod(0)

            with as_nobody(), pytest.raises(ConfigError) as refused:
                setting("db")
        assert f"{place}/closed/here/gigq.toml cannot be looked for: Permission denied" in str(
            refused.value
        )
        assert "start in a folder" in str(refused.value)

    def test_of_a_home_that_may_not_be_entered_is_none(self, monkeypatch):
        """`sudo` may leave the `HOME` of another user behind."""
        with folder_for_all() as place:
            (place / "home").mkdir(mode=0)
            monkeypatch.setenv("XDG_CONFIG_HOME", str(place / "home"))
            monkeypatch.chdir(place)

            with as_nobody():
                assert setting("lease").origin == "default"

    def test_a_working_directory_that_is_gone_is_no_error(self, project, monkeypatch):
        gone = project / "gone"
        gone.mkdir()
        monkeypatch.chdir(gone)
        gone.rmdir()

        assert setting("lease").value == 30.0


class TestTheSchema:
    def test_in_the_wheel_is_the_one_of_the_code(self):
        """Run `python -c "import gigq.config, json; print(json.dumps(gigq.config.schema(), indent=2))"`
        into gigq/config.schema.json when this fails."""
        stored = json.loads((package_files("gigq") / "config.schema.json").read_text())

        assert stored == config.schema()

    def test_names_every_setting(self):
        assert set(config.schema()["properties"]) == set(OPTIONS)

    def test_every_setting_is_documented_and_listed(self, project):
        assert [each.name for each in config.settings()] == list(OPTIONS)
        assert all(option.help for option in OPTIONS.values())

    def test_files_are_named_the_strongest_first(self, project, user_file):
        user_file.write_text("")
        (project / "gigq.toml").write_text("")

        assert config.files() == [Path(project / "gigq.toml"), user_file]
