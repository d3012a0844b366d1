"""What this distribution brings, as data. Nothing else of it is imported until it is used."""

from __future__ import annotations

from gigq.hookspecs import ExecutorSpec, SerializerSpec, StorageSpec, hookimpl

#: The version of gigq's contracts that these parts were written and tested for. A gigq with another
#: one refuses them by name instead of failing somewhere inside.
CONTRACT = 1


@hookimpl
def gigq_storages() -> dict[str, StorageSpec]:
    """`JobQueue("jsonfile://jobs.json")`."""
    return {
        "jsonfile": StorageSpec(
            "gigq_template.storage:JsonFileStorage",
            "one readable file, one process",
            contract=CONTRACT,
        )
    }


@hookimpl
def gigq_serializers() -> dict[str, SerializerSpec]:
    """`serializer="zjson"`."""
    return {
        "zjson": SerializerSpec(
            "gigq_template.serializer:ZJsonSerializer", "compressed JSON", contract=CONTRACT
        )
    }


@hookimpl
def gigq_executors() -> dict[str, ExecutorSpec]:
    """`executor="solo"`."""
    return {
        "solo": ExecutorSpec(
            "gigq_template.executor:SoloExecutor",
            "a process of its own per slot",
            contract=CONTRACT,
        )
    }
