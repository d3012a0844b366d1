"""Processes of the worker's own host: spawned, reused, killed when they must be.

`pool` decides who runs what, `spawn` starts and ends one child as its parent sees it, `child` is what
runs there, `wire` is what travels between the two, and `marker` is the piece of memory by which a parent
knows what a child is doing, also after it died. `leash` and its `guard` end children whose worker stands
still for longer than its lease.
"""

from gigq.executors.process.pool import ProcessExecutor

__all__ = ["ProcessExecutor"]
