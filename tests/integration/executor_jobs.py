"""What the tests of the executors let them run: `run` functions, importable in a child process."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import locale
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from gigq.contracts.executor import Call, Ending, Report, RunStopped, stop_signal, stopped_report
from gigq.contracts.serializer import Payload

ODD = contextvars.ContextVar("odd", default="clean")


def do(call: Call) -> Report:
    """Run the function of this module that the call names, with the call's parameters."""
    try:
        value = globals()[call.function](**json.loads(call.params.data))
    except RunStopped:
        stop = stop_signal.get()
        return stopped_report(call, stop.reason if stop else None)
    return Report(call.run, Ending.COMPLETED, result=Payload("json", json.dumps(value).encode()))


def break_the_contract(call: Call) -> Report:
    """A `run` that raises, which none may."""
    raise SystemExit(f"contract broken by {call.run.job_id}")


class Untouchable(Exception):
    def __getattribute__(self, name):
        raise RuntimeError(f"do not look at {name}")

    def __repr__(self):
        raise RuntimeError("nor at this")


def break_the_contract_and_the_log(call: Call) -> Report:
    raise Untouchable


def echo(value=None):
    return value


def pid():
    return os.getpid()


def ends(path, name, seconds=0, status=None):
    """Write its name down, wait, and end the process where a status is given."""
    with Path(path).open("a") as file:
        file.write(name + "\n")
    time.sleep(seconds)
    if status is not None:
        os._exit(status)


def thread_name():
    return threading.current_thread().name


def spins(path, seconds=60.0):
    """Pure Python that notices nothing; says by a file that it came to its `finally`."""
    try:
        burn(seconds)
    finally:
        Path(path).touch()


def burn(seconds):
    # Not in `spins` itself: Python 3.13 can raise at the end of a loop outside of the loop's own `try`.
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def blocks(seconds):
    """One C call that cannot be interrupted."""
    time.sleep(seconds)
    return "slept"


def swallows(path):
    """Catches its stop once, cleans up, and goes on to its end."""
    try:
        while True:
            time.sleep(0.001)
    except RunStopped:
        Path(path).touch()
    return "went on"


def coroutine(path, polite):
    async def body():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            Path(path).touch()
            if not polite:
                await asyncio.sleep(60)
            raise

    signal_ = stop_signal.get()

    async def main():
        task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        if signal_ is not None:
            signal_.on_set(lambda: loop.call_soon_threadsafe(task.cancel))
        await body()

    try:
        asyncio.run(main())
    except asyncio.CancelledError:
        raise RunStopped from None


def messes_up(folder):
    """Change all that must not reach the next job."""
    ODD.set("dirty")
    os.chdir(folder)
    os.environ["GIGQ_LEAK"] = "leaked"
    os.environ.pop("PATH", None)
    sys.path.insert(0, "/nowhere")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, lambda *_: os._exit(9))
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    signal.signal(signal.SIGPROF, lambda *_: None)
    signal.setitimer(signal.ITIMER_PROF, 0.01, 0.01)  # its signal ends a process without a handler
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    os.umask(0o777)
    sys.stdout = sys.excepthook = threading.excepthook = None
    sys.settrace(lambda *_: None)
    sys.setrecursionlimit(80)
    gc.disable()
    locale.setlocale(locale.LC_ALL, "C.UTF-8")


def looks_around():
    return {
        "context": ODD.get(),
        "folder": str(Path.cwd()),
        "leak": os.environ.get("GIGQ_LEAK"),
        "path": os.environ.get("PATH"),
        "sys_path": sys.path[0],
        "sigterm": repr(signal.getsignal(signal.SIGTERM)),
        "timers": [
            signal.getitimer(signal.ITIMER_REAL)[0],
            signal.getitimer(signal.ITIMER_PROF)[0],
        ],
        "data_limit": resource.getrlimit(resource.RLIMIT_DATA)[0],
        "group": os.getpgid(0),
        "session": os.getsid(0),
        "mask": sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))),
        "umask": [os.umask(0o22), os.umask(0o22)][0],
        "objects": [repr(each) for each in (sys.stdout, sys.excepthook, threading.excepthook)],
        "tracer": repr(sys.gettrace()),
        "recursion limit": sys.getrecursionlimit(),
        "collects": gc.isenabled(),
        "locale": locale.setlocale(locale.LC_ALL),
    }


def blocks_signals():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    sys.settrace(lambda *_: None)


def traces():
    sys.settrace(lambda *_: None)
    try:
        return echo("traced")
    finally:
        sys.settrace(None)


def blocked_signals():
    return [
        *map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        *([] if sys.gettrace() is None else ["a tracer"]),
    ]


def leaves_a_thread():
    """One for whose end the interpreter would wait."""
    threading.Thread(target=time.sleep, args=(60,)).start()
    return os.getpid()


def closes_its_output():
    sys.stdout.close()
    return os.getpid()


def closes_standard_descriptors():
    os.closerange(0, 3)
    return os.getpid()


def starts_a_process(path, seconds=60):
    """A process of the job's own, and then wait for it."""
    child = subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({seconds})"])
    Path(path).write_text(str(child.pid))
    child.wait()


def leaves_a_process(path):
    """A process that holds all descriptors and outlives its job."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], close_fds=False)
    Path(path).write_text(str(child.pid))
    os._exit(5)


def forks_and_terminates():
    """What a job that uses multiprocessing by fork does at its end."""
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    process.start()
    process.terminate()
    process.join(20)
    return process.exitcode


def runs_and_terminates():
    """The same with a program."""
    program = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    program.terminate()
    return program.wait(20)


def prints(text):
    sys.stdout.write(text + "\n")
    time.sleep(60)


def prints_briefly(text):
    print(text)
    return "printed"


def overflows_the_stack():
    """A recursion in C that Python's own limit does not see; a small stack, so that it is short."""
    sys.setrecursionlimit(10**9)
    nest = []
    for _ in range(10**5):
        nest = [nest]
    threading.stack_size(64 * 1024)
    thread = threading.Thread(target=repr, args=(nest,))
    thread.start()
    thread.join()


def writes_to_every_descriptor():
    for descriptor in range(3, 4096):
        try:
            os.write(descriptor, b"\xde\xad" * 8)
        except OSError:
            continue


def closes_every_descriptor():
    os.closerange(3, 4096)


def big(megabytes):
    return "x" * (megabytes << 20)


def many_threads(count):
    threads = [threading.Thread(target=time.sleep, args=(0.01,)) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return count
