"""Jobs that do what no job should, and two that look at what is left of it.

Each begins with a line for the witness (`tests.faults.witness`). What they are expected to come to stands in
`test_misbehaving_jobs.py`.
"""

from __future__ import annotations

import asyncio
import builtins
import ctypes
import functools
import gc
import inspect
import json
import locale
import logging
import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

from gigq.context import current_job
from gigq.contracts.executor import RunStopped
from gigq.job import Job
from gigq.queue import JobQueue
from gigq.worker import Worker
from tests.faults import witness

PR_SET_PDEATHSIG = 1


def attended(function):
    """The function as a job, whose runs the witness sees; it takes `log` besides its own parameters."""

    @functools.wraps(function)
    def job(log, **params):
        witness.attend(log, "began")
        return function(**params)

    del job.__wrapped__
    own = list(inspect.signature(function).parameters.values())
    first = inspect.Parameter("log", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    job.__signature__ = inspect.Signature([first, *own])
    return job


# --- those that look ------------------------------------------------------------------------------


@attended
def say(value):
    return value


@attended
def looks_around():
    """Everything that a job can change for those after it, as far as it can be compared."""
    return {
        "alarm": signal.getitimer(signal.ITIMER_REAL)[0],
        "builtins": repr(builtins.open),
        "children": _children(),
        "descriptors": _descriptors(),
        "environment": dict(os.environ),
        "excepthook": repr(sys.excepthook),
        "folder": _cwd(),
        "gc": gc.isenabled(),
        "handlers": {
            number.name: _named(signal.getsignal(number))
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM)
        },
        "json": _named(json.dumps),
        "locale": locale.setlocale(locale.LC_ALL, None),
        "logging": [logging.getLogger().level, len(logging.getLogger().handlers)],
        "profiler": repr(sys.getprofile()),
        "random": random.random() == random.Random(4).random(),
        "file size": resource.getrlimit(resource.RLIMIT_FSIZE)[0],
        "recursion limit": sys.getrecursionlimit(),
        "signal mask": sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))),
        "socket timeout": socket.getdefaulttimeout(),
        "stdout": _prints(),
        "sys.path": list(sys.path),
        "thread excepthook": repr(threading.excepthook),
        "threads": sum(each.name == "left behind" for each in threading.enumerate()),
        "time": _named(time.time),
        "tracer": repr(sys.gettrace()),
        "umask": _umask(),
        "warnings": len(warnings.filters),
    }


def _named(handler):
    return getattr(handler, "__qualname__", str(handler))


def _descriptors():
    """The fewest in a while: the worker's own threads open files for a moment, as to ask for a process."""
    counts = []
    for _ in range(10):
        counts.append(len(list(Path("/proc/self/fd").iterdir())))
        time.sleep(0.001)
    return min(counts)


def _cwd():
    try:
        return str(Path.cwd())
    except FileNotFoundError:
        return "gone"


def _prints():
    try:
        print("a job can print")
        print("a job can complain", file=sys.stderr)
        os.fstat(0)
        return [sys.stdout.fileno(), sys.stderr.fileno()]
    except Exception as error:
        return repr(error)


def _umask():
    umask = os.umask(0o77)
    os.umask(umask)
    return umask


def _children():
    """Processes that earlier jobs left, as their command lines."""
    tasks = Path("/proc/self/task").glob("*/children")
    mine = [pid for task in tasks for pid in task.read_text().split()]
    return sum("left behind" in Path(f"/proc/{pid}/cmdline").read_text() for pid in mine)


# --- those that raise -----------------------------------------------------------------------------


class Unearthly(BaseException):
    pass


class Rude(Exception):
    def __init__(self, said):
        super().__init__()
        self.said = said

    def __str__(self):
        if isinstance(self.said, str):
            return self.said
        raise self.said

    __repr__ = __str__


class Holding(Exception):
    """Cannot be pickled."""

    def __init__(self):
        super().__init__("holds a lock")
        self.lock = threading.Lock()


class Untouchable(Exception):
    """Cannot even be looked at."""

    def __getattribute__(self, name):
        raise RuntimeError(f"do not look at {name}")


class Silent(Exception):
    def __str__(self):
        return 5  # noqa: PLE0307 - on purpose


def _caused_by(cause, number):
    error = ValueError(f"link {number}")
    error.__cause__ = cause
    return error


def _circle():
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    return one


#: What `raises` raises, by what it is called in the table.
RAISED = {
    "BaseException": lambda: Unearthly("from elsewhere"),
    "SystemExit": lambda: SystemExit("text and no number"),
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": lambda: GeneratorExit("no generator"),
    "StopIteration": lambda: StopIteration("no iterator"),
    "CancelledError": lambda: asyncio.CancelledError("nobody cancelled it"),
    "RunStopped": RunStopped,
    "cannot be pickled": Holding,
    "__str__ raises": lambda: Rude(ValueError("in __str__")),
    "__str__ exits": lambda: Rude(SystemExit("in __str__")),
    "__str__ gives no text": Silent,
    "50 MB of message": lambda: Rude("x" * 50_000_000),
    "NUL and surrogates": lambda: ValueError("a\0b\ud800c\x1b[31m"),
    "cannot be looked at": Untouchable,
    "group": lambda: BaseExceptionGroup("several", [Rude("one"), Unearthly("two")]),
    "group of 10,000": lambda: ExceptionGroup("many", [ValueError(str(n)) for n in range(10_000)]),
    "chain of 10,000": lambda: functools.reduce(_caused_by, range(10_000), ValueError("first")),
    "circle of causes": _circle,
}


@attended
def raises(what):
    raise RAISED[what]()  # noqa: RSE102 - it makes the exception


@attended
def calls_sys_exit(code):
    sys.exit(code)


@attended
def recurses():
    def deeper():
        return deeper() + 1

    return deeper()


@attended
def asks_for_all_memory():
    return bytearray(1 << 62)


@attended
def takes_memory(megabytes):
    return len(bytearray(megabytes << 20))


@attended
def raises_when_it_is_collected():
    class Late:
        def __del__(self):
            raise ValueError("in __del__")

    Late()
    return "collected"


@attended
def raises_in_a_thread_later():
    def late():
        time.sleep(0.05)
        raise ValueError("after the job")

    threading.Thread(target=late, name="late").start()
    return "returned"


# --- those that return what cannot be kept --------------------------------------------------------


class Cunning(dict):
    def items(self):
        raise SystemExit("in items")

    def __iter__(self):
        raise SystemExit("in __iter__")


def _nested(depth):
    nest = []
    for _ in range(depth):
        nest = [nest]
    return nest


def _circular():
    circle = []
    circle.append(circle)
    return circle


RETURNED = {
    "an object": object,
    "a function": lambda: print,
    "a generator": lambda: (number for number in range(3)),
    "a lock": threading.Lock,
    "a circle": _circular,
    "100,000 lists in lists": lambda: _nested(100_000),
    "a dict that exits": lambda: Cunning(a=1),
    "a number of 10,000 digits": lambda: 10**10_000,
}


@attended
def returns(what):
    return RETURNED[what]()


@attended
def returns_megabytes(megabytes):
    return "x" * (megabytes << 20)


# --- those that print -----------------------------------------------------------------------------


@attended
def prints(megabytes):
    for _ in range(megabytes):
        print("x" * (1 << 20))
        print("y" * (1 << 20), file=sys.stderr)
    return "printed"


# --- those that change what is not theirs ---------------------------------------------------------


def _folder(folder):
    os.chdir(folder)


def _folder_gone(folder):
    place = Path(folder, "gone")
    place.mkdir()
    os.chdir(place)
    place.rmdir()


def _environment(_):
    os.environ["LEAKED"] = "yes"
    os.environ.pop("HOME", None)


def _no_environment(_):
    os.environ.clear()


def _another_environment(_):
    os.environ = {"LEAKED": "yes"}  # noqa: B003 - on purpose


def _sys_path(_):
    sys.path[:] = ["/nowhere"]


def _another_sys_path(_):
    sys.path = ["/nowhere"]


def _handlers(_):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def _alarm(_):
    signal.signal(signal.SIGALRM, lambda *_: os._exit(9))
    signal.setitimer(signal.ITIMER_REAL, 0.2)


def _mask(_):
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.valid_signals()))


def _umask_open(_):
    os.umask(0o777)


def _recursion_limit(_):
    sys.setrecursionlimit(80)


def _stdout(_):
    sys.stdout = sys.stderr = None


def _stdout_closed(_):
    sys.stdout.close()


def _gc(_):
    gc.disable()


def _locale(_):
    locale.setlocale(
        locale.LC_ALL, "C" if locale.setlocale(locale.LC_ALL, None) != "C" else "C.UTF-8"
    )


def _random(_):
    random.seed(4)


def _logging(_):
    logging.basicConfig(level=logging.DEBUG, force=True)
    logging.disable(logging.CRITICAL)


def _thread_excepthook(_):
    threading.excepthook = None


def _excepthook(_):
    sys.excepthook = None


def _socket_timeout(_):
    socket.setdefaulttimeout(0.001)


def _warnings(_):
    warnings.simplefilter("error")


def _tracer(_):
    sys.settrace(_no_tracer)


def _profiler(_):
    sys.setprofile(_no_tracer)


def _no_tracer(*_):
    return None


def _file_size(_):
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, resource.RLIM_INFINITY))


def _json(_):
    json.dumps = _in_place_of(json.dumps)


def _time(_):
    time.time = _in_place_of(time.time)


def _in_place_of(function):
    def patched(*args, **named):
        return function(*args, **named)

    return patched


#: What `changes` does, by what it is called in the table.
CHANGES = {
    "the working directory": _folder,
    "the working directory, and removes it": _folder_gone,
    "the environment": _environment,
    "the whole environment": _no_environment,
    "os.environ itself": _another_environment,
    "sys.path": _sys_path,
    "sys.path itself": _another_sys_path,
    "signal handlers": _handlers,
    "the alarm": _alarm,
    "the signal mask": _mask,
    "the umask": _umask_open,
    "the recursion limit": _recursion_limit,
    "sys.stdout": _stdout,
    "sys.stdout by closing it": _stdout_closed,
    "the collector": _gc,
    "the locale": _locale,
    "the random seed": _random,
    "logging": _logging,
    "threading.excepthook": _thread_excepthook,
    "sys.excepthook": _excepthook,
    "the socket timeout": _socket_timeout,
    "warnings": _warnings,
    "the tracer": _tracer,
    "the profiler": _profiler,
    "a resource limit": _file_size,
    "json": _json,
    "time": _time,
}


@attended
def changes(what, folder):
    CHANGES[what](folder)
    return "changed"


# --- those that leave something behind ------------------------------------------------------------


@attended
def leaves_a_thread(daemon):
    threading.Thread(target=time.sleep, args=(60,), name="left behind", daemon=daemon).start()


@attended
def leaves_a_process(folder):
    program = "import time; time.sleep(60)  # left behind"
    process = subprocess.Popen([sys.executable, "-S", "-c", program])
    Path(folder, f"left-{process.pid}").touch()


@attended
def leaves_descriptors(count):
    for _ in range(count):
        os.dup(0)


@attended
def clears_its_parent_death_signal():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, 0)


# --- those that tear at their process -------------------------------------------------------------


@attended
def exits(code):
    os._exit(code)


@attended
def dies_by(number):
    os.kill(os.getpid(), number)
    time.sleep(30)


@attended
def touches_foreign_memory():
    ctypes.string_at(0)


@attended
def recurses_in_c():
    sys.setrecursionlimit(10**9)
    nest = _nested(10**5)
    threading.stack_size(64 * 1024)
    thread = threading.Thread(target=repr, args=(nest,))
    thread.start()
    thread.join()


@attended
def closes_descriptors(first):
    os.closerange(first, 4096)
    return "closed"


@attended
def closes_standard_descriptors():
    for number in (0, 1, 2):
        os.close(number)
    return "closed"


@attended
def writes_to_descriptors():
    for number in range(3, 4096):
        try:
            os.write(number, b"\xde\xad" * 8)
        except OSError:
            continue
    return "written"


@attended
def kills_its_group(number):
    os.kill(0, number)
    return "lived on"


@attended
def kills_its_parent(number):
    os.kill(os.getppid(), number)
    time.sleep(30)


@attended
def asks_its_process_to_end():
    os.kill(os.getpid(), signal.SIGTERM)
    return "finished all the same"


@attended
def breaks(what):
    """A module that gigq uses too."""
    names = {json: ("dumps", "loads"), time: ("time", "time_ns", "monotonic", "monotonic_ns")}
    module = sys.modules[what]
    for name in names[module]:
        setattr(module, name, None)


@attended
def begins_a_session():
    os.setsid()


# --- those that fork ------------------------------------------------------------------------------


@attended
def forks(folder, then):
    """The new process comes back from the job, raises out of it, or lives on; this one says its id."""
    pid = os.fork()
    if pid == 0:
        if then == "raises":
            raise ValueError("in the forked process")
        if then == "lives on":
            time.sleep(60)
        return "from the forked process"
    Path(folder, f"left-{pid}").touch()
    if then == "lives on":
        return "forked"
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


# --- those that do not end ------------------------------------------------------------------------


@attended
def never_returns():
    while True:
        time.sleep(0.005)


@attended
def ignores_its_stop(seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            while time.monotonic() < until:
                time.sleep(0.005)
        except BaseException:
            continue
    return "went on"


@attended
def holds_the_gil(seconds):
    ctypes.PyDLL(None).usleep(int(seconds * 1_000_000))
    return "held it"


@attended
def searches_for_ever(length):
    re.search(r"(a+)+$", "a" * length + "b")


@attended
async def waits_for_ever():
    await asyncio.Event().wait()


@attended
async def cancels_all_tasks():
    for task in asyncio.all_tasks():
        task.cancel()
    await asyncio.sleep(10)


@attended
async def leaves_tasks():
    asyncio.create_task(asyncio.sleep(60))  # noqa: RUF006 - on purpose
    return "left"


@attended
def imports_what_hangs(folder):
    Path(folder, "hangs_at_import.py").write_text("import time\nwhile True: time.sleep(0.005)\n")
    sys.path.insert(0, folder)
    __import__("hangs_at_import")


# --- those that use their own queue ---------------------------------------------------------------


@attended
def submits(db, witness_log):
    with JobQueue(db) as queue:
        return queue.submit(Job("from a job", say, {"log": witness_log, "value": "submitted"}))


@attended
def cancels_itself(db):
    with JobQueue(db) as queue:
        queue.cancel(current_job().id, running=True)
    never = threading.Event()
    while not never.wait(0.005):
        pass


@attended
def closes_its_worker():
    worker = next(each for each in gc.get_objects() if type(each) is Worker)
    worker.close()


@attended
def works_itself(db):
    with Worker(db) as worker:
        return worker.process_one()


@attended
def removes_the_file(folder):
    shutil.rmtree(folder)
    return "removed"
