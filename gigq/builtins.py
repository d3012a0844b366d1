"""The plugin that brings gigq's own storages, serializers and executors: names alone, no imports."""

from __future__ import annotations

from gigq.hookspecs import ExecutorSpec, SerializerSpec, StorageSpec, hookimpl


@hookimpl
def gigq_storages() -> dict[str, StorageSpec]:
    """By URL scheme; a path without one is `sqlite`."""
    return {
        "sqlite": StorageSpec("gigq.storages.sqlite:SqliteStorage", "one file, many processes"),
        "memory": StorageSpec("gigq.storages.memory:MemoryStorage", "this process only, for tests"),
    }


@hookimpl
def gigq_serializers() -> dict[str, SerializerSpec]:
    """By the name that is stored beside each payload; `signed` goes around another."""
    return {
        "json": SerializerSpec(
            "gigq.serializers.json:JsonSerializer", "readable, safe, the default"
        ),
        "msgpack": SerializerSpec("gigq.serializers.msgpack:MsgpackSerializer", "compact, safe"),
        "cloudpickle": SerializerSpec(
            "gigq.serializers.cloudpickle:CloudpickleSerializer", "any object, runs code when read"
        ),
        "signed": SerializerSpec(
            "gigq.serializers.signed:SignedSerializer", "an HMAC around another one"
        ),
    }


@hookimpl
def gigq_executors() -> dict[str, ExecutorSpec]:
    """By name."""
    return {
        "thread": ExecutorSpec("gigq.executors.thread:ThreadExecutor", "threads of the worker"),
        "process": ExecutorSpec("gigq.executors.process:ProcessExecutor", "spawned processes"),
    }
