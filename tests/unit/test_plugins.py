"""Choosing parts by name, and what a stranger's broken plugin may and may not disturb."""

# ruff: noqa: ARG005 - hooks are matched by the names of their parameters

from __future__ import annotations

import importlib.metadata
import logging
import sys
import types
from dataclasses import dataclass, field
from typing import Any

import click
import pytest

from gigq import plugins
from gigq.clock import ManualClock
from gigq.contracts.executor import Executor
from gigq.contracts.serializer import Serializer
from gigq.contracts.storage import Storage
from gigq.errors import (
    ConfigError,
    InvalidSettingType,
    PluginBroken,
    PluginConflict,
    PluginIncompatible,
    UnknownPlugin,
)
from gigq.hookspecs import ExecutorSpec, SerializerSpec, StorageSpec, hookimpl
from gigq.serializers.json import JsonSerializer
from gigq.storages.memory import MemoryStorage


class Upper(JsonSerializer):
    """A stranger's serializer."""

    __slots__ = ()
    name = "upper"


class Other(Upper):
    __slots__ = ()
    name = "other"


class Remote(Executor):
    """A stranger's executor, chosen by a URL."""

    name = "remote"

    def __init__(self, url: str = "") -> None:
        self.url = url

    def start(self, slots, run, report): ...
    def submit(self, calls): ...
    def running(self): ...
    def withdraw(self, runs): ...
    def stop(self, run, reason): ...
    def close(self, grace): ...


NOT_A_CLASS = 5


@dataclass
class Distribution:
    name: str
    version: str = "1.2"

    @property
    def metadata(self):
        return {"Name": self.name}


@dataclass
class EntryPoint:
    """As `importlib.metadata` gives it: a name, and a module that is loaded on demand."""

    name: str
    dist: Distribution
    module: Any
    loads: list = field(default_factory=list)

    @property
    def value(self):
        return f"{self.dist.name}.plugin"

    def load(self):
        self.loads.append(self.name)
        if isinstance(self.module, BaseException):
            raise self.module
        return self.module


def module(**hooks):
    """A plugin's module that defines these hooks."""
    made = types.ModuleType("stranger")
    for name, function in hooks.items():
        setattr(made, name, hookimpl(function))
    return made


def brings(name="upper", target=f"{__name__}:Upper", **fields):
    return module(gigq_serializers=lambda: {name: SerializerSpec(target, **fields)})


@pytest.fixture
def installed(monkeypatch):
    """What is installed beside gigq; a test adds entry points, and counts the scans."""
    for variable in ("GIGQ_BLOCK", "GIGQ_SIGNING_KEY"):
        monkeypatch.delenv(variable, raising=False)
    points: list[EntryPoint] = []
    scans: list[str] = []

    def entry_points(*, group):
        scans.append(group)
        return list(points)

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    monkeypatch.setattr(plugins, "_warned", set())
    plugins.reset()

    def add(name, distribution, found):
        point = EntryPoint(name, Distribution(distribution), found)
        points.append(point)
        return point

    add.scans = scans
    yield add
    plugins.reset()


def info(kind, name, distribution=None):
    (found,) = [
        each for each in plugins.listing()
        if (each.kind, each.name) == (kind, name) and distribution in (None, each.distribution)
    ]  # fmt: skip
    return found


class TestABuiltIn:
    @pytest.mark.parametrize("name", ["json", "msgpack", "cloudpickle"])
    def test_serializer_is_found_without_reading_metadata(self, installed, name):
        """A name of ours costs no look at what is installed."""
        assert plugins.serializer(name).name == name
        assert installed.scans == []

    def test_storage_is_found_without_reading_metadata(self, installed):
        assert isinstance(plugins.storage("memory://"), MemoryStorage)
        assert type(plugins.storage("jobs.db")).__name__ == "SqliteStorage"
        assert installed.scans == []

    def test_executor_is_found_without_reading_metadata(self, installed):
        assert plugins.executor("thread").name == "thread"
        assert installed.scans == []

    def test_name_cannot_be_taken(self, installed):
        """The built-in goes on working; the claim is shown as what it is."""
        installed("json", "gigq-evil", brings("json"))

        assert type(plugins.serializer("json")) is JsonSerializer
        assert info("serializer", "json", "gigq").status == "ok"
        claim = info("serializer", "json", "gigq-evil")
        assert claim.status == "conflict"
        assert "belongs to gigq" in claim.problem
        assert "gigq-evil 1.2 must choose another" in claim.problem

    def test_disappears_when_the_builtins_are_blocked(self, installed, monkeypatch):
        """They come through the same door as everybody's."""
        monkeypatch.setenv("GIGQ_BLOCK", "builtins")

        with pytest.raises(UnknownPlugin, match=r"Blocked are builtins \(environment GIGQ_BLOCK\)"):
            plugins.serializer("json")
        with pytest.raises(UnknownPlugin):
            plugins.storage("jobs.db")
        assert plugins.accepted(None) == {}
        assert [each.status for each in plugins.listing()] == ["blocked"]

    def test_all_of_them_load(self, installed):
        """Each name in `builtins` leads to a class."""
        for each in plugins.listing():
            if each.name != "signed":
                choose = getattr(plugins, each.kind)
                choose({"sqlite": "jobs.db", "memory": "memory://"}.get(each.name, each.name))


class TestAPlugin:
    def test_is_found_by_its_name(self, installed):
        point = installed("upper", "gigq-upper", brings(summary="louder"))

        assert type(plugins.serializer("upper")) is Upper
        assert point.loads == ["upper"]
        found = info("serializer", "upper")
        assert (found.distribution, found.version, found.summary, found.status) == (
            "gigq-upper", "1.2", "louder", "ok",
        )  # fmt: skip

    def test_is_loaded_only_when_its_name_is_asked_for(self, installed):
        """An entry point has its plugin's name: the others stay untouched."""
        other = installed("other", "gigq-other", ImportError("no such luck"))
        installed("upper", "gigq-upper", brings())

        plugins.serializer("upper")

        assert other.loads == []

    def test_may_bring_more_than_its_entry_points_name(self, installed):
        installed("upper", "gigq-upper", brings("other", f"{__name__}:Other"))

        assert type(plugins.serializer("other")) is Other

    def test_may_bring_an_executor_that_is_chosen_by_url(self, installed):
        bring = module(gigq_executors=lambda: {"remote": ExecutorSpec(f"{__name__}:Remote")})
        installed("remote", "gigq-remote", bring)

        assert plugins.executor("remote://host:1/x").url == "remote://host:1/x"
        assert plugins.executor("remote").url == ""

    def test_whose_class_cannot_be_made_is_named_without_the_urls_password(self, installed):
        """`remote://user:password@host`: only the scheme is shown."""

        class NeedsNothing(Remote):
            def __init__(self):
                super().__init__()

        sys.modules[__name__].NeedsNothing = NeedsNothing
        bring = module(gigq_executors=lambda: {"remote": ExecutorSpec(f"{__name__}:NeedsNothing")})
        installed("remote", "gigq-remote", bring)

        with pytest.raises(PluginBroken, match="executor 'remote' cannot be made") as refusal:
            plugins.executor("remote://user:s3cret@host")

        assert "s3cret" not in str(refusal.value)

    def test_may_bring_a_storage(self, installed):
        target = "gigq.storages.memory:MemoryStorage"
        installed("mem", "gigq-mem", module(gigq_storages=lambda: {"memory2": StorageSpec(target)}))

        with pytest.raises(ConfigError):  # found, and asked: it does not know this scheme
            plugins.storage("memory2://x")

    def test_that_does_not_load_is_an_error_for_who_asks_for_it(self, installed):
        installed("upper", "gigq-upper", ZeroDivisionError("boom"))

        with pytest.raises(PluginBroken) as refusal:
            plugins.serializer("upper")

        assert "gigq-upper 1.2 does not load: ZeroDivisionError: boom" in str(refusal.value)
        assert "GIGQ_BLOCK=upper" in str(refusal.value)
        assert isinstance(refusal.value.__cause__, ZeroDivisionError)
        found = info("plugin", "upper")
        assert found.status == "broken"
        assert "boom" in found.problem

    @pytest.mark.parametrize("trouble", [ImportError("gone"), SystemExit(3), SyntaxError("?")])
    def test_that_does_not_load_disturbs_no_other(self, installed, trouble):
        installed("bad", "gigq-bad", trouble)
        installed("upper", "gigq-upper", brings("other", f"{__name__}:Other"))

        assert type(plugins.serializer("other")) is Other
        assert plugins.observers("gigq_job_finished") is None

    def test_that_does_not_load_is_named_to_who_asks_for_the_unknown(self, installed):
        """It may have been the one that was meant."""
        installed("bad", "gigq-bad", ImportError("needs libfoo"))

        with pytest.raises(
            UnknownPlugin, match=r"gigq-bad 1\.2 does not load: ImportError: needs libfoo"
        ):
            plugins.serializer("foo")

    def test_for_another_contract_is_refused_under_its_name_alone(self, installed):
        two = module(gigq_serializers=lambda: {
            "upper": SerializerSpec(f"{__name__}:Upper", contract=99),
            "other": SerializerSpec(f"{__name__}:Other"),
        })  # fmt: skip
        installed("upper", "gigq-upper", two)

        with pytest.raises(PluginIncompatible) as refusal:
            plugins.serializer("upper")

        assert "made for version 99 of gigq's contracts; this gigq has version 1" in str(
            refusal.value
        )
        assert "pip install --upgrade gigq" in str(refusal.value)
        assert type(plugins.serializer("other")) is Other
        assert info("serializer", "upper").status == "incompatible"

    def test_for_an_older_contract_is_to_be_upgraded_itself(self, installed):
        installed("upper", "gigq-upper", brings(contract=0))

        with pytest.raises(PluginIncompatible, match="pip install --upgrade gigq-upper"):
            plugins.serializer("upper")

    def test_that_says_nothing_was_made_for_the_first_contract(self, installed, monkeypatch):
        """It cannot mean a version that came after it."""
        monkeypatch.setattr("gigq.plugins.claims.CONTRACT_VERSION", 2)
        installed("upper", "gigq-upper", brings())

        with pytest.raises(PluginIncompatible, match="made for version 1"):
            plugins.serializer("upper")

    def test_that_needs_what_is_missing_says_the_line_to_type(self, installed):
        installed("upper", "gigq-upper",
                  brings(requires=("json", "no_such_module"), install="gigq-upper[driver]"))  # fmt: skip

        with pytest.raises(PluginBroken) as refusal:
            plugins.serializer("upper")

        assert "needs no_such_module, which is not installed" in str(refusal.value)
        assert "pip install 'gigq-upper[driver]'" in str(refusal.value)
        assert info("serializer", "upper").status == "missing"

    def test_in_conflict_is_an_error_for_who_asks_and_names_both(self, installed):
        installed("upper", "gigq-one", brings())
        installed("upper", "gigq-two", brings())

        with pytest.raises(PluginConflict, match=r"claimed by gigq-one 1\.2 .* and gigq-two 1\.2"):
            plugins.serializer("upper")
        assert plugins.serializer("json").name == "json"
        both = [each for each in plugins.listing() if each.name == "upper"]
        assert [each.status for each in both] == ["conflict"] * 2
        assert all("Uninstall one" in each.problem for each in both)

    def test_in_conflict_over_a_name_that_is_nobodys_entry_point(self, installed):
        installed("one", "gigq-one", brings())
        installed("two", "gigq-two", brings())

        with pytest.raises(PluginConflict, match="GIGQ_BLOCK=gigq-two"):
            plugins.serializer("upper")

    def test_whose_entry_point_has_the_name_has_the_right_to_it(self, installed):
        """Then a stranger's claim to it changes nothing, whether it was loaded before or not."""
        installed("grabber", "gigq-grabber", brings("upper", f"{__name__}:Other"))
        installed("upper", "gigq-upper", brings())

        plugins.listing()

        assert type(plugins.serializer("upper")) is Upper
        assert info("serializer", "upper", "gigq-upper").status == "ok"
        assert info("serializer", "upper", "gigq-grabber").status == "conflict"

    @pytest.mark.parametrize("word", ["upper", "gigq-upper"])
    def test_can_be_blocked_by_its_name_and_by_its_distribution(self, installed, monkeypatch, word):
        point = installed("upper", "gigq-upper", brings("loud", summary="x"))
        assert plugins.serializer("loud")
        monkeypatch.setenv("GIGQ_BLOCK", word)

        with pytest.raises(UnknownPlugin, match="There is no serializer"):
            plugins.serializer("loud")

        assert point.loads == ["upper"]
        assert info("plugin", "upper").status == "blocked"

    def test_part_can_be_blocked_by_its_own_name(self, installed, monkeypatch):
        monkeypatch.setenv("GIGQ_BLOCK", "cloudpickle")

        with pytest.raises(UnknownPlugin, match="Blocked are cloudpickle"):
            plugins.serializer("cloudpickle")
        assert plugins.serializer("json").name == "json"
        assert info("serializer", "cloudpickle").status == "blocked"

    def test_with_two_entry_points_is_asked_once(self, installed):
        bring = brings()
        installed("upper", "gigq-upper", bring)
        installed("louder", "gigq-upper", bring)

        assert type(plugins.serializer("upper")) is Upper
        assert {each.status for each in plugins.listing()} == {"ok"}

    def test_that_answers_one_hook_wrongly_is_heard_in_none(self, installed):
        """What is reported as broken does not go on listening."""
        heard: list[str] = []
        listens = module(
            gigq_serializers=lambda: 5, gigq_worker_left=lambda session: heard.append("x")
        )
        installed("half", "gigq-half", listens)

        assert plugins.observers("gigq_worker_left") is None
        assert info("plugin", "half").status == "broken"

    @pytest.mark.parametrize(
        ("hooks", "said"),
        [
            ({"gigq_serializers": lambda: ["upper"]}, "must return a mapping of names to specs"),
            ({"gigq_serializers": lambda: {"upper": "a:b"}}, "it must be a SerializerSpec"),
            ({"gigq_serializers": lambda: {"upper": StorageSpec("a:b")}}, "it must be a SerializerSpec"),
            ({"gigq_serializers": lambda: {"Up+per": SerializerSpec("a:b")}}, "lower-case letters"),
            ({"gigq_serializers": lambda: {"upper": SerializerSpec("nocolon")}}, "must be 'module:Class'"),
            ({"gigq_serializers": lambda: 1 / 0}, "ZeroDivisionError"),
            ({"gigq_serializer": lambda: 0}, "no hook gigq_serializer; did it mean gigq_serializers"),
            ({"gigq_storages": lambda nonsense: {}}, "nonsense"),
        ],
    )  # fmt: skip
    def test_that_answers_a_hook_wrongly_is_told_how(self, installed, hooks, said):
        installed("upper", "gigq-upper", module(**hooks))

        with pytest.raises(PluginBroken) as refusal:
            plugins.serializer("upper")

        assert said in str(refusal.value)
        assert "gigq-upper 1.2" in str(refusal.value)

    @pytest.mark.parametrize(
        ("target", "said"),
        [
            ("no_such_module:X", "ModuleNotFoundError"),
            (f"{__name__}:Missing", "AttributeError"),
            (f"{__name__}:NOT_A_CLASS", "no serializer: it must be a subclass of"),
            (f"{__name__}:Remote", "no serializer: it must be a subclass of"),
        ],
    )
    def test_whose_class_is_not_there_is_named(self, installed, target, said):
        installed("upper", "gigq-upper", brings(target=target))

        with pytest.raises(PluginBroken) as refusal:
            plugins.serializer("upper")

        assert said in str(refusal.value)
        assert "gigq-upper 1.2" in str(refusal.value)


class TestAnUnknownName:
    def test_is_answered_with_the_known_and_the_near(self, installed):
        installed("upper", "gigq-upper", brings())

        with pytest.raises(UnknownPlugin) as refusal:
            plugins.serializer("uper")

        assert "There is no serializer 'uper'." in str(refusal.value)
        assert "Did you mean upper?" in str(refusal.value)
        assert "cloudpickle, json, msgpack, signed, upper" in str(refusal.value)

    @pytest.mark.parametrize(
        ("url", "distribution"),
        [("postgresql://h/d", "gigq-postgres"), ("postgres://h/d", "gigq-postgres"),
         ("redis://h", "gigq-redis"), ("rediss://h", "gigq-redis"), ("valkey://h", "gigq-redis"),
         ("unix:///run/redis.sock", "gigq-redis")],
    )  # fmt: skip
    def test_of_a_storage_says_who_is_to_bring_it(self, installed, url, distribution):
        with pytest.raises(UnknownPlugin, match=f"{distribution} is to bring it"):
            plugins.storage(url)

    def test_of_an_executor_says_who_is_to_bring_it(self, installed):
        with pytest.raises(UnknownPlugin, match="gigq-dask is to bring it"):
            plugins.executor("dask://scheduler:8786")


class TestChoosing:
    def test_takes_a_class_and_an_object(self, installed):
        made = Upper()

        assert plugins.serializer(made) is made
        assert type(plugins.serializer(Upper)) is Upper
        assert type(plugins.executor(Remote)) is Remote
        assert plugins.storage(storage := MemoryStorage()) is storage
        assert installed.scans == []

    def test_takes_a_dotted_name(self, installed):
        """A class of the user's own needs no plugin around it."""
        assert type(plugins.serializer(f"{__name__}:Upper")) is Upper
        assert type(plugins.executor(f"{__name__}:Remote")) is Remote
        assert installed.scans == []

    @pytest.mark.parametrize("target", ["no_such_module:X", f"{__name__}:Missing", ":X", "x:"])
    def test_refuses_a_dotted_name_that_leads_nowhere(self, installed, target):
        with pytest.raises(UnknownPlugin, match="module:Class"):
            plugins.serializer(target)

    @pytest.mark.parametrize(
        "choose",
        [lambda: plugins.serializer(5), lambda: plugins.serializer(dict), lambda: plugins.executor(None),
         lambda: plugins.executor(Upper()), lambda: plugins.storage(5), lambda: plugins.storage(b"x.db"),
         lambda: plugins.storage(MemoryStorage)],
    )  # fmt: skip
    def test_refuses_what_is_no_choice(self, installed, choose):
        """An error of ours that is also a TypeError, with what could have been given."""
        with pytest.raises(InvalidSettingType, match="Give a") as refusal:
            choose()

        assert isinstance(refusal.value, TypeError)

    @pytest.mark.parametrize(
        "choose", [lambda: plugins.storage(""), lambda: plugins.storage("a\0b"),
                   lambda: plugins.serializer(" "), lambda: plugins.executor("")],
    )  # fmt: skip
    def test_refuses_an_empty_text(self, installed, choose):
        with pytest.raises(ConfigError, match="Give a"):
            choose()

    @pytest.mark.parametrize("target", ["sqlite:jobs.db", "postgresql:/host/db", "memory:"])
    def test_refuses_a_url_that_lost_its_slashes(self, installed, target):
        """It would become a file of that name, found when nobody's jobs run."""
        with pytest.raises(ConfigError, match="begins like a URL"):
            plugins.storage(target)

    def test_shows_no_password_of_a_url_that_lost_its_slashes(self, installed):
        with pytest.raises(ConfigError, match="begins like a URL") as refused:
            plugins.storage("sqlite:me:battery@host/db")

        assert "battery" not in str(refused.value)

    def test_takes_a_path_with_a_colon(self, installed):
        assert "12:30" in plugins.storage("jobs 12:30.db").url

    def test_hands_the_clock_to_the_storage(self, installed):
        clock = ManualClock()
        storage = plugins.storage("memory://", clock=clock)
        storage.initialize()
        storage.open()

        assert isinstance(storage, Storage)
        assert storage._clock is clock


class TestSigning:
    KEYS = plugins.signing_keys({"new": "n", "old": b"o"})

    def test_keys_come_as_text_bytes_or_by_id(self, installed):
        assert plugins.signing_keys(None) is None
        assert plugins.signing_keys("k") == plugins.signing_keys(b"k") == {"default": b"k"}
        assert list(self.KEYS.items()) == [("new", b"n"), ("old", b"o")]

    def test_with_keys_every_choice_is_signed(self, installed):
        for choice in ("json", "signed", "signed+json", JsonSerializer, JsonSerializer()):
            assert plugins.serializer(choice, signing_keys=self.KEYS).name == "signed+json"
        assert plugins.serializer(Upper, signing_keys=self.KEYS).name == "signed+upper"

    def test_signed_is_not_signed_again(self, installed):
        made = plugins.serializer("json", signing_keys=self.KEYS)

        assert plugins.serializer(made, signing_keys=self.KEYS) is made

    def test_signed_without_a_key_is_an_error(self, installed):
        with pytest.raises(ConfigError, match="GIGQ_SIGNING_KEY"):
            plugins.serializer("signed+msgpack")


class TestAccepted:
    def test_is_what_is_safe_and_ours_by_default(self, installed):
        """No third party is loaded for it, and nothing that runs code is in it."""
        accepted = plugins.accepted(None)

        assert list(accepted) == ["json", "msgpack"]
        assert all(each.safe for each in accepted.values())
        assert installed.scans == []

    def test_with_keys_is_only_what_is_signed(self, installed):
        keys = plugins.signing_keys("k")

        assert list(plugins.accepted(None, signing_keys=keys)) == ["signed+json", "signed+msgpack"]
        assert list(plugins.accepted("cloudpickle", signing_keys=keys)) == ["signed+cloudpickle"]

    def test_takes_one_or_several(self, installed):
        assert list(plugins.accepted("msgpack")) == ["msgpack"]
        assert list(plugins.accepted(["json", Upper])) == ["json", "upper"]
        assert list(plugins.accepted(Upper())) == ["upper"]

    def test_warns_once_of_what_runs_code_and_is_not_signed(self, installed, recwarn):
        """Not when it is signed or only looked at, and not again."""
        plugins.serializer("cloudpickle")
        plugins.accepted("cloudpickle", signing_keys=plugins.signing_keys("k"))
        assert not recwarn.list

        plugins.accepted("cloudpickle")
        plugins.accepted("cloudpickle")

        plugins.serializer("cloudpickle", signing_keys=None)
        (warning,) = recwarn.list
        assert "signing_key=" in str(warning.message)


class TestObservers:
    def test_are_none_when_nobody_listens(self, installed):
        installed("upper", "gigq-upper", brings())

        assert plugins.observers("gigq_job_finished") is None

    def test_all_hear_what_they_ask_for(self, installed):
        heard: list[Any] = []
        installed(
            "a", "gigq-a", module(gigq_job_submitted=lambda job_id: heard.append(("a", job_id)))
        )
        installed(
            "b",
            "gigq-b",
            module(gigq_job_submitted=lambda queue, name: heard.append((name, queue))),
        )

        plugins.observers("gigq_job_submitted")(job_id="1", name="n", queue="q")

        assert sorted(heard) == [("a", "1"), ("n", "q")]

    def test_that_raise_are_logged_and_disturb_nobody(self, installed, monkeypatch):
        heard: list[str] = []
        records: list[logging.LogRecord] = []
        handler = logging.Handler()
        handler.emit = records.append
        monkeypatch.setattr(logging.getLogger("gigq.plugins"), "handlers", [handler])
        installed("a", "gigq-a", module(gigq_worker_left=lambda session: heard.append("a")))
        installed("bad", "gigq-bad", module(gigq_worker_left=lambda session: 1 / 0))
        installed("c", "gigq-c", module(gigq_worker_left=lambda session: heard.append("c")))

        plugins.observers("gigq_worker_left")(session=None)

        assert sorted(heard) == ["a", "c"]
        assert [record.getMessage() for record in records] == [
            "plugin gigq-bad:bad raised in gigq_worker_left"
        ]

    def test_of_a_run_wrap_it(self, installed):
        steps: list[str] = []

        @hookimpl(wrapper=True)
        def gigq_run(call):
            steps.append("before")
            report = yield
            steps.append("after")
            return report

        tracer = types.ModuleType("tracer")
        tracer.gigq_run = gigq_run
        installed("tracer", "gigq-tracer", tracer)
        wrapped = plugins.observers("gigq_run")

        def run(call):
            steps.append(f"run {call}")
            return "report"

        assert wrapped.call_extra([run], {"call": 1}) == "report"
        assert steps == ["before", "run 1", "after"]

    def test_are_listed_though_they_bring_nothing_to_choose(self, installed):
        installed("metrics", "gigq-metrics", module(gigq_job_finished=lambda call: None))

        found = info("plugin", "metrics")
        assert (found.summary, found.status) == ("gigq_job_finished", "ok")


class TestCommands:
    def test_join_the_group(self, installed):
        installed(
            "hi",
            "gigq-hi",
            module(gigq_commands=lambda group: group.add_command(click.Command("hi"))),
        )
        installed("bad", "gigq-bad", module(gigq_commands=lambda group: 1 / 0))
        group = click.Group()

        plugins.commands(group)

        assert list(group.commands) == ["hi"]


class TestImporting:
    def test_the_door_is_light(self):
        """It loads neither pluggy nor a contract until somebody asks."""
        source = sys.modules["gigq.plugins"]

        assert not hasattr(source, "pluggy")
        assert not hasattr(source, "Storage")
        assert isinstance(plugins.serializer("json"), Serializer)
