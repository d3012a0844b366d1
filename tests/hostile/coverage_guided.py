"""Coverage-guided fuzzing with atheris: `./dev fuzz [TARGET] [-max_total_time=SECONDS …]`.

Each target takes bytes and may raise nothing but what it says. Without a time each runs for a minute;
libFuzzer's own options are passed on, and an input that breaks a promise is left as `crash-…`.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
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
        code = subprocess.call(
            [sys.executable, "-m", "tests.hostile.coverage_guided", *options],
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
