"""The process executor beside pebble, in one run: calls per second, crash isolation, kill latency.

    python benchmarks/process_pool.py [CALLS]

Needs pebble. Compare the columns with each other and not with another machine.
"""

from __future__ import annotations

import os
import statistics
import sys
import threading
import time
from multiprocessing import get_context
from typing import Any

from pebble import ProcessPool

from gigq.contracts.executor import Call, Ending, Report, StopReason
from gigq.contracts.serializer import Payload
from gigq.contracts.storage import Run, RunNumber
from gigq.executors.process import ProcessExecutor

WORKERS = 2
ROUNDS = 15


def act(call: Call) -> Report:
    """What gigq's children run."""
    if call.function == "die":
        os._exit(3)
    if call.function == "hang":
        time.sleep(60)
    return Report(call.run, Ending.COMPLETED, result=call.params)


def echo(data: bytes) -> bytes:
    return data


def die() -> None:
    os._exit(3)


def hang() -> None:
    time.sleep(60)


class Gigq:
    """The executor, with a way to wait for reports."""

    def __init__(self) -> None:
        self.reports: dict[str, Report] = {}
        self.changed = threading.Condition()
        self.executor = ProcessExecutor()
        self.executor.start(WORKERS, act, self.report)

    def report(self, report: Report, _slot: int) -> None:
        self.reports[report.run.job_id] = report
        with self.changed:
            self.changed.notify()

    def wait(self, count: int) -> None:
        with self.changed:
            self.changed.wait_for(lambda: len(self.reports) >= count)

    def call(self, name: str, function: str = "echo", timeout: float | None = None) -> Call:
        limit = None if timeout is None else round(timeout * 1e6)
        return Call(
            Run(name, RunNumber(1)), name, "q", function, "json", Payload("json", b"{}"),
            timeout_us=limit,
        )  # fmt: skip


def gigq_calls(count: int) -> tuple[float, float]:
    """Calls per second, and the parent's processor time per call in microseconds."""
    side = Gigq()
    calls = [side.call(f"job-{number}") for number in range(count)]
    started, cpu = time.perf_counter(), time.process_time()
    for at in range(0, count, 500):
        side.executor.submit(calls[at : at + 500])
    side.wait(count)
    took, cpu = time.perf_counter() - started, time.process_time() - cpu
    side.executor.close(1)
    return count / took, cpu / count * 1e6


def pebble_calls(count: int) -> tuple[float, float]:
    with ProcessPool(max_workers=WORKERS, context=get_context("spawn")) as pool:
        pool.schedule(echo, args=[b""]).result()
        started, cpu = time.perf_counter(), time.process_time()
        for future in [pool.schedule(echo, args=[b"{}"]) for _ in range(count)]:
            future.result()
        took, cpu = time.perf_counter() - started, time.process_time() - cpu
    return count / took, cpu / count * 1e6


def gigq_trip() -> float:
    side = Gigq()
    times = []
    for number in range(200):
        started = time.perf_counter()
        side.executor.submit([side.call(f"job-{number}")])
        side.wait(number + 1)
        times.append(time.perf_counter() - started)
    side.executor.close(1)
    return statistics.median(times) * 1e3


def pebble_trip() -> float:
    times = []
    with ProcessPool(max_workers=WORKERS, context=get_context("spawn")) as pool:
        pool.schedule(echo, args=[b""]).result()
        for _ in range(200):
            started = time.perf_counter()
            pool.schedule(echo, args=[b"{}"]).result()
            times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e3


def gigq_crash() -> int:
    """How many of 401 calls are lost when one of them kills its process."""
    side = Gigq()
    calls = [side.call(f"job-{number}") for number in range(400)]
    side.executor.submit([*calls[:200], side.call("fatal", "die"), *calls[200:]])
    side.wait(401)
    side.executor.close(1)
    return sum(report.ending is not Ending.COMPLETED for report in side.reports.values())


def pebble_crash() -> int:
    lost = 0
    with ProcessPool(max_workers=WORKERS, context=get_context("spawn")) as pool:
        futures: list[Any] = [pool.schedule(echo, args=[b"{}"]) for _ in range(200)]
        futures.append(pool.schedule(die))
        futures += [pool.schedule(echo, args=[b"{}"]) for _ in range(200)]
        for future in futures:
            lost += future.exception() is not None
    return lost


def gigq_overshoot() -> list[float]:
    """By how many milliseconds a timeout of 0.2 s is overshot."""
    side = Gigq()
    late = []
    for number in range(ROUNDS):
        call = side.call(f"job-{number}", "hang", 0.2)
        side.executor.submit([call])
        while not any(each.run == call.run for each in side.executor.running()):
            time.sleep(0.0005)
        started = time.perf_counter()
        side.wait(number + 1)
        late.append((time.perf_counter() - started - 0.2) * 1e3)
    side.executor.close(1)
    return late


def pebble_overshoot() -> list[float]:
    late = []
    with ProcessPool(max_workers=WORKERS, context=get_context("spawn")) as pool:
        for _ in range(ROUNDS):
            future = pool.schedule(hang, timeout=0.2)
            while not future.running():
                time.sleep(0.0005)
            started = time.perf_counter()
            future.exception()
            late.append((time.perf_counter() - started - 0.2) * 1e3)
    return late


def gigq_cancel() -> list[float]:
    """Milliseconds from the wish to stop a running call to its report."""
    side = Gigq()
    times = []
    for number in range(ROUNDS):
        call = side.call(f"job-{number}", "hang")
        side.executor.submit([call])
        while not any(each.run == call.run for each in side.executor.running()):
            time.sleep(0.001)
        started = time.perf_counter()
        side.executor.stop(call.run, StopReason.CANCEL)
        side.wait(number + 1)
        times.append((time.perf_counter() - started) * 1e3)
    side.executor.close(1)
    return times


def pebble_cancel() -> list[float]:
    """The same with pebble, until it runs the next call in that place."""
    times = []
    with ProcessPool(max_workers=1, context=get_context("spawn")) as pool:
        pool.schedule(echo, args=[b""]).result()
        for _ in range(ROUNDS):
            future = pool.schedule(hang)
            while not future.running():
                time.sleep(0.001)
            started = time.perf_counter()
            future.cancel()  # type: ignore[no-untyped-call]
            pool.schedule(echo, args=[b""]).result()
            times.append((time.perf_counter() - started) * 1e3)
    return times


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):7.1f} ms (max {max(values):.1f})"


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 40_000
    ours, theirs = gigq_calls(count), pebble_calls(count // 4)
    print(f"{WORKERS} workers, spawned      {'gigq':>24} {'pebble':>24}")
    print(f"no-op calls per second    {ours[0]:24,.0f} {theirs[0]:24,.0f}")
    print(f"parent's CPU per call     {ours[1]:21.1f} µs {theirs[1]:21.1f} µs")
    print(f"round trip of one call    {gigq_trip():21.2f} ms {pebble_trip():21.2f} ms")
    print(f"lost of 401, one dies     {gigq_crash():24} {pebble_crash():24}")
    print(
        f"timeout overshoot         {spread(gigq_overshoot()):>24} {spread(pebble_overshoot()):>24}"
    )
    print(f"cancel of a running call  {spread(gigq_cancel()):>24} {spread(pebble_cancel()):>24}")


if __name__ == "__main__":
    main()
