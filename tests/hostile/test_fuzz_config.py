"""Settings: files, variables and URLs with anything in them are used as they say or refused by name."""

from __future__ import annotations

import json
import os
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gigq import config, plugins
from gigq.errors import ConfigError, GigqError

PATIENCE = 20
NAMES = sorted(config.OPTIONS)

toml_values = st.recursive(
    st.one_of(
        st.text(max_size=30).map(lambda text: json.dumps(text, ensure_ascii=False)),
        st.integers().map(str),
        st.floats().map(str),
        st.sampled_from(
            [
                "true",
                "false",
                "2020-01-01",
                "07:32:00",
                "''",
                '""',
                "nan",
                "-inf",
                "0x10",
                "1_0",
                "'''a\nb'''",
            ]
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.dictionaries(st.sampled_from("abc"), inner, max_size=2).map(
            lambda table: "{" + ", ".join(f"{key} = {item}" for key, item in table.items()) + "}"
        ),
    ),
    max_leaves=4,
)
documents = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=200).map(str.encode),
    st.dictionaries(st.sampled_from([*NAMES, "no_such", "a.b"]), toml_values, max_size=4).map(
        lambda table: "\n".join(f"{key} = {value}" for key, value in table.items()).encode(
            "utf-8", "replace"
        )
    ),
)


@pytest.fixture
def fuzz(sized):
    def run(strategy, check):
        @settings(
            max_examples=sized(short=120, full=200, nightly=30_000), deadline=None, database=None,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(strategy)
        def holds(example):
            check(example)

        holds()

    return run


def read_settings():
    """All settings, or the error that names what is wrong; soon."""
    began = time.monotonic()
    found, told = answer_of(config.settings)
    assert time.monotonic() - began < PATIENCE
    if found is not None:
        assert all(isinstance(each.origin, str) and repr(each) for each in found)
        return found
    assert 0 < len(told) < 5_000
    return None


def answer_of(ask, *given):
    """What it gives, or None and what its `GigqError` says."""
    try:
        return ask(*given), ""
    except GigqError as error:
        return None, str(error)


class TestASettingsFile:
    @pytest.mark.parametrize(
        ("name", "before"),
        [("gigq.toml", b""), ("pyproject.toml", b"[tool.gigq]\n"), ("pyproject.toml", b"tool = 1\n"),
         ("pyproject.toml", b'["tool"."gigq"]\n')],
    )  # fmt: skip
    def test_with_anything_in_it_is_read_or_refused(self, in_tmp_path, fuzz, name, before):
        """A `ConfigError` that names the file, and nothing else."""
        path = in_tmp_path / name

        def check(document):
            path.write_bytes(before + document)
            config._read.clear()
            read_settings()

        fuzz(documents, check)

    @pytest.mark.parametrize(
        "text",
        [
            "db = " + "[" * 100_000, "db = " + "{a=" * 10_000, "a." * 2_000 + "b = 1", "[" * 10_000 + "a",
            "concurrency = " + "9" * 100_000, "lease = 1e" + "9" * 10_000, "\n" * 200_000 + "x",
            " " * 200_000 + "x", "[ tool" * 40_000, "\t\n" * 100_000 + "[tool]",
            "db='" + "x" * 2_000_000 + "'",
            "[[tool.gigq]]\n" * 1_000, 'db = "\\U0010FFFF\\ud800"', "\ufeffdb = 'x'", "\0", "=",
            "[tool.gigq]\n" * 2,
        ],
        ids=range(17),
    )  # fmt: skip
    @pytest.mark.parametrize("name", ["gigq.toml", "pyproject.toml"])
    def test_that_was_made_to_hang_a_reader_does_not(self, in_tmp_path, name, text):
        """Depth, sizes, and what makes regular expressions try for ever: an answer within seconds."""
        (in_tmp_path / name).write_text(text, errors="surrogatepass")
        config._read.clear()

        read_settings()

    def test_without_end_is_not_read_to_its_end(self, in_tmp_path):
        """Of a file of many gigabytes no more is read than settings may have."""
        with (in_tmp_path / "pyproject.toml").open("wb") as file:
            file.truncate(1 << 40)
        config._read.clear()

        with pytest.raises(ConfigError, match=f"has {1 << 40} bytes"):
            config.settings()

    def test_that_is_no_file_is_refused(self, in_tmp_path):
        """A folder, a pipe, a link that leads to itself."""
        for make in (os.mkdir, os.mkfifo, lambda path: path.symlink_to(path)):
            path = in_tmp_path / "gigq.toml"
            make(path)
            config._read.clear()
            read_settings()
            path.rmdir() if path.is_dir() else path.unlink()


class TestAVariable:
    @pytest.mark.parametrize("name", NAMES)
    def test_with_anything_in_it_is_used_or_refused(self, in_tmp_path, monkeypatch, fuzz, name):
        """A `ConfigError` that names the variable."""
        variable = config.OPTIONS[name].variable
        texts = st.one_of(
            st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=50),
            st.binary(max_size=20).map(lambda data: os.fsdecode(data.replace(b"\0", b""))),
            st.sampled_from(
                ["{" * 100_000, "[" * 100_000, "9" * 100_000, "{}", '{"a": 1}', "nan", "-1", "1e400"]
            ),
        )  # fmt: skip

        def check(text):
            monkeypatch.setenv(variable, text)
            if (found := read_settings()) is None:
                with pytest.raises(ConfigError, match=variable):
                    config.setting(name)
            elif name == "signing_key":
                assert text not in repr(found) or len(text) < 12

        fuzz(texts, check)


class TestAUrl:
    def test_with_anything_in_it_names_a_storage_or_is_refused(self, in_tmp_path, fuzz):
        """A storage that is not opened yet, or an error of ours; nothing is made."""
        parts = st.text(max_size=30)
        urls = st.one_of(
            parts,
            st.builds("{}://{}".format, st.sampled_from(["sqlite", "memory", "SQLITE", "", "x"]), parts),
            st.builds("sqlite:///{}?{}={}".format, parts,
                      st.sampled_from(["durability", "busy_timeout", "", "x"]), parts),
            st.binary(max_size=9).map(lambda raw: f"sqlite:///{''.join(f'%{x:02x}' for x in raw)}"),
        )  # fmt: skip

        def check(url):
            storage, told = answer_of(plugins.storage, url)
            assert told or storage.url

        fuzz(urls, check)
        assert list(in_tmp_path.iterdir()) == []

    @pytest.mark.parametrize("kind", ["serializer", "executor"])
    def test_or_name_of_a_part_is_known_or_refused(self, fuzz, kind):
        """`module:Class` of what is no such part is refused as well."""
        choose = getattr(plugins, kind)
        names = st.one_of(
            st.text(max_size=30),
            st.builds("{}:{}".format, st.text(max_size=8), st.text(max_size=8)),
            st.sampled_from(
                ["os:system", "builtins:object", "gigq.errors:GigqError", "json:loads", "a:b:c", ":", "os:",
                 "signed+", "signed+signed+json", "signed+os:system", "json+json", "thread://x", "x://"]
            ),
        )  # fmt: skip

        def check(name):
            part, told = answer_of(choose, name)
            assert told or part.name

        fuzz(names, check)
