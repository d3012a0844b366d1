"""Coverage-guided fuzzing with atheris: `./dev fuzz [TARGET] [-max_total_time=SECONDS …]`.

Each target takes bytes and may raise nothing but what it says. It starts from what gigq writes, because no
coverage shows the way through a parser in C. Without a time each runs for a minute; libFuzzer's own options
are passed on, and an input that breaks a promise is left as `crash-…`.
"""

from __future__ import annotations

import datetime as dt
import decimal
import io
import os
import subprocess
import sys
import tempfile
import uuid
import zoneinfo
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECONDS = 60


def read_json(data):
    from gigq.errors import SerializationError
    from gigq.serializers.json import JsonSerializer

    try:
        JsonSerializer().loads(data)
    except SerializationError:
        return


def read_msgpack(data):
    from gigq.errors import SerializationError
    from gigq.serializers.msgpack import MsgpackSerializer

    try:
        MsgpackSerializer().loads(data)
    except SerializationError:
        return


def read_signed(data):
    from gigq.contracts.serializer import Binding
    from gigq.errors import SignatureRefused
    from gigq.serializers.json import JsonSerializer
    from gigq.serializers.signed import SignedSerializer

    serializer = SignedSerializer(JsonSerializer(), {"default": b"k" * 32})
    try:
        serializer.bound(Binding.of_result("a")).loads(data)
    except SignatureRefused:
        return
    raise AssertionError("what nobody signed was read")


def read_settings(data):
    from gigq import config
    from gigq.errors import ConfigError

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "gigq.toml")
        path.write_bytes(data)
        try:
            config._load(path)
        except ConfigError:
            return


def read_import(data):
    from gigq.cli import transfer

    head = transfer.header("sqlite:///a.db", "1").encode() + b"\n"
    try:
        list(transfer.read(io.BytesIO(head + data)))
    except transfer.Malformed:
        return


def read_url(data):
    from gigq.errors import GigqError
    from gigq.storages.sqlite.location import locate

    try:
        locate(data.decode("utf-8", "surrogateescape"))
    except GigqError:
        return


TARGETS = {
    "json": read_json, "msgpack": read_msgpack, "signed": read_signed, "settings": read_settings,
    "import": read_import, "url": read_url,
}  # fmt: skip


def seeds(name):
    """What a target starts from: valid inputs, small ones too."""
    return {
        "json": lambda: written("json"),
        "msgpack": lambda: written("msgpack"),
        "signed": lambda: [b"gigq1.default." + b"0" * 64 + b".[1]"],
        "settings": lambda: [f"{each.name} = {_toml(each)}\n".encode() for each in _options()],
        "import": exported,
        "url": lambda: [b"sqlite:///a.db", b"sqlite:////a%20b.db?durability=normal&busy_timeout=1.5"],
    }[name]()  # fmt: skip


def written(name):
    """Payloads with every tag."""
    from gigq import plugins

    moment = dt.datetime(2020, 1, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"))
    values = [
        (1,), {1}, frozenset({"a"}), {1: 2}, {"$a": 1}, "\ud800", 10**700, float("inf"), b"a",
        bytearray(b"a"), 1j, moment, moment.replace(tzinfo=None, fold=1), dt.date(2020, 1, 1),
        dt.time(1), dt.timedelta(1), decimal.Decimal("1.50"), uuid.UUID(int=5),
    ]  # fmt: skip
    serializer = plugins.serializer(name)
    return [serializer.dumps(value) for value in (*values, values, {"a": [None, True, 2.5, "ä"]})]


def exported():
    """The lines of an export, and all of them together."""
    from gigq.cli import transfer
    from gigq.job import Job
    from gigq.queue import JobQueue
    from tests.hostile.jobs import double, total

    with JobQueue("memory://seeds") as queue:
        parent = queue.submit(Job("parent", double, {"value": "a"}, tags=["t"], queue="q"))
        queue.submit(Job("child", total, dependencies=[parent], delay=9, unique_key="k"))
        lines = [transfer.job_line(each).encode() + b"\n" for each in queue.storage.export()]
    end = transfer.trailer(len(lines)).encode() + b"\n"
    return [*lines, b"".join([*lines, end])]


def _options():
    from gigq.config import OPTIONS

    return OPTIONS.values()


def _toml(option):
    examples = {"number": "1.5", "integer": "2"}
    return examples.get(option.schema.get("type"), '"info"')


def main():
    """All targets one after the other, each in a process of its own: libFuzzer ends the one it runs in."""
    names = [word for word in sys.argv[1:] if not word.startswith("-")] or list(TARGETS)
    options = [word for word in sys.argv[1:] if word.startswith("-")]
    if unknown := set(names) - set(TARGETS):
        sys.exit(f"no target {', '.join(sorted(unknown))}; known are {', '.join(TARGETS)}")
    if not any(word.startswith(("-max_total_time", "-runs")) for word in options):
        options.append(f"-max_total_time={SECONDS}")
    for name in names:
        print(f"fuzz: {name}", file=sys.stderr)
        with tempfile.TemporaryDirectory() as corpus:
            for number, seed in enumerate(seeds(name)):
                Path(corpus, f"{number:03}").write_bytes(seed)
            code = subprocess.call(
                [sys.executable, "-m", "tests.hostile.coverage_guided", *options, corpus],
                cwd=ROOT, env={**os.environ, "GIGQ_FUZZ_TARGET": name},
            )  # fmt: skip
        if code:
            sys.exit(code)


def fuzz(name):
    """Run one target in this process."""
    import atheris

    with atheris.instrument_imports(include=["gigq"]):
        import gigq.cli.transfer
        import gigq.config
        import gigq.serializers.json
        import gigq.serializers.msgpack
        import gigq.serializers.signed
        import gigq.serializers.tags
        import gigq.storages.sqlite.location  # noqa: F401 - loaded here to be watched
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    if chosen := os.environ.pop("GIGQ_FUZZ_TARGET", ""):
        fuzz(chosen)
    else:
        main()
