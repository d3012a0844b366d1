"""Where a SQLite storage lives: its URL, its file, and whether the file is still the one opened."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, unquote

from gigq.errors import ConfigError, StorageReplaced, StorageUnavailable

_A_DAY = 86_400
DURABILITIES = ("full", "normal")
#: File systems whose locks and shared memory do not reach other hosts, by their names in /proc/mounts.
#: A write-ahead log needs both (sqlite.org/wal.html, "Overview", disadvantage 2).
NETWORK = frozenset(
    {
        "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "fuse.sshfs",
        "fuse.glusterfs", "fuse.s3fs", "fuse.rclone", "ncpfs", "lustre", "beegfs", "gpfs", "ocfs2",
    }
)  # fmt: skip


#: The files of a queue, as they are called after the database itself.
SUFFIXES = ("", "-wal", "-shm", "-journal", "-gate")


@dataclass(frozen=True, slots=True)
class Location:
    """A database file and how it is to be used.

    Attributes:
        path: As the user wrote it.
        real: Absolute and without symbolic links: the same for all who mean the same file.
        durability: `full` syncs at each commit; `normal` only at checkpoints.
        busy_timeout: Seconds that a call may wait for the lock; None for the storage's own bound.
        only_looks: Nothing in it is changed, also not by closing it.
    """

    path: str
    real: str
    durability: str = "full"
    busy_timeout: float | None = None
    only_looks: bool = False

    @property
    def url(self) -> str:
        options = [] if self.durability == "full" else [f"durability={self.durability}"]
        if self.busy_timeout is not None:
            options.append(f"busy_timeout={self.busy_timeout:g}")
        query = f"?{'&'.join(options)}" if options else ""
        return f"sqlite:///{quote(self.path, safe='/ :@+,~', errors='surrogateescape')}{query}"

    def uri(self, mode: str) -> str:
        """For `sqlite3.connect(…, uri=True)`."""
        return f"{Path(self.real).as_uri()}?mode={mode}"

    @property
    def gate(self) -> str:
        return f"{self.real}-gate"


def locate(target: str | os.PathLike[str]) -> Location:
    """The location that a URL or a path means.

    Raises:
        ConfigError: An option or value that is not known, named.
    """
    text = os.fspath(target)
    durability, busy_timeout = "full", None
    path = text
    if "://" in text:
        scheme, _, rest = text.partition("://")
        if scheme.lower() != "sqlite":
            raise ConfigError(f"{text!r} is not the URL of a SQLite file: write sqlite:///jobs.db.")
        path, _, query = rest.partition("?")
        if not path.startswith("/"):
            raise ConfigError(
                f"{text!r} has a host, and a SQLite file has none.\n"
                "Write sqlite:///jobs.db for a relative path, sqlite:////srv/jobs.db for an absolute one."
            )
        path = unquote(path[1:], errors="surrogateescape")  # as Python names files of any bytes
        for option, value in parse_qsl(query, keep_blank_values=True):
            if option == "durability":
                durability = _durability(text, value)
            elif option == "busy_timeout":
                busy_timeout = _seconds(text, value)
            else:
                raise ConfigError(
                    f"{text!r} has the option {option!r}, which SQLite storages do not know.\n"
                    "They know durability=full|normal and busy_timeout=SECONDS."
                )
    _refuse_path(text, path)
    try:
        real = os.path.realpath(path)
    except OSError as error:
        raise StorageUnavailable(f"The path {path!r} cannot be followed: {error}.") from error
    return Location(path, real, durability, busy_timeout)


def _durability(url: str, value: str) -> str:
    if value not in DURABILITIES:
        raise ConfigError(
            f"{url!r}: durability={value!r} is not known.\n"
            "durability=full survives a power cut; durability=normal is faster and may lose the last "
            "moments in one, but never in the death of a process."
        )
    return value


def _seconds(url: str, value: str) -> float:
    with contextlib.suppress(ValueError):
        seconds = float(value)
        if 0 <= seconds <= _A_DAY:
            return seconds
    raise ConfigError(f"{url!r}: busy_timeout={value!r} is no number of seconds from 0 to 86400.")


def _refuse_path(text: str, path: str) -> None:
    if not path:
        raise ConfigError(f"{text!r} names no file: write sqlite:///jobs.db.")
    if path == ":memory:" or path.startswith("file::memory:"):
        raise ConfigError(
            f"{text!r}: a SQLite database in memory would be another one for each connection.\n"
            "Use memory:// for a queue that lives in this process."
        )
    try:
        os.fsencode(path)
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{text!r} names no file: this system cannot write it as a path."
        ) from error
    if "\0" in path:
        raise ConfigError(f"{text!r} has a NUL character, which no path can have.")


def private_file(path: str, flags: int) -> int:
    """A descriptor of a file that its owner alone can read and write, whatever the umask says.

    No link is followed: somebody else may have put one there.
    """
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | flags, 0o600)
    if flags & os.O_EXCL and hasattr(os, "fchmod"):
        os.fchmod(descriptor, 0o600)
    return descriptor


def sync_folder(folder: Path) -> None:
    """Let the names in a folder survive a power cut, where the system can sync a folder."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def create_file(location: Location) -> None:
    """Make an empty file that only its owner can read, where there is none.

    Made before SQLite sees it: SQLite would give it whatever the umask allows. Errors of the system
    that no sentence of ours explains better go through.
    """
    try:
        os.close(private_file(location.real, os.O_EXCL))
    except FileExistsError:
        return
    except FileNotFoundError as error:
        raise StorageUnavailable(
            f"{location.url} cannot be made: the folder {str(Path(location.real).parent)!r} does not "
            "exist.\nMake the folder first, or correct the path."
        ) from error
    except PermissionError as error:
        raise StorageUnavailable(
            f"{location.url} cannot be made: you may not write to the folder "
            f"{str(Path(location.real).parent)!r}.\nChoose another folder, or have its permissions "
            "changed."
        ) from error


def refuse_network(location: Location) -> None:
    """Raise when the file lies on a file system that other hosts may have mounted too.

    Raises:
        StorageUnavailable: Names the file system.
    """
    kind = file_system(location.real)
    if kind in NETWORK:
        raise StorageUnavailable(
            f"{location.url} lies on a network file system ({kind}).\n"
            "SQLite's write-ahead log needs shared memory and locks that do not reach other hosts: "
            "jobs would be lost or run twice.\n"
            "Put the file on a local disk, or use a server: postgresql://… or redis://…."
        )


def file_system(path: str, mounts: str = "/proc/mounts") -> str:
    """The kind of file system that a path lies on; "" where the system does not tell."""
    if not sys.platform.startswith("linux"):
        return ""
    try:
        table = Path(mounts).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""
    best, kind = "", ""
    for line in table.splitlines():
        _, point, mounted, *_ = [*line.split(" "), "", "", ""]
        # proc_mounts(5) writes blanks in a mount point as \040.
        point = point.replace("\\040", " ")
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if point and inside and len(point) >= len(best):
            best, kind = point, mounted
    return kind


class Identity(NamedTuple):
    """Which file a path led to: a path can come to lead to another one."""

    device: int
    inode: int


def identity(location: Location) -> Identity | None:
    """None where there is no file (any more)."""
    found = _found(location)
    return None if found is None else Identity(found.st_dev, found.st_ino)


def _found(location: Location) -> os.stat_result | None:
    try:
        return os.stat(location.real)  # noqa: PTH116 - on the path of every write
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StorageUnavailable(f"{location.url} cannot be reached: {error}.") from error


def refuse_replaced(location: Location, opened: Identity) -> None:
    """Raise when the path no longer leads to the file that was opened.

    Raises:
        StorageReplaced: Writing on would go to a file that nobody finds any more.
    """
    found = _found(location)
    if found is None:
        raise vanished(location, "was deleted or moved away")
    if (found.st_dev, found.st_ino) != opened:
        raise vanished(location, "was replaced by another file")
    if not found.st_size:
        raise vanished(location, "was emptied")


def locked_by(location: Location, table: str = "/proc/locks") -> int | None:
    """A process that holds a lock for writing on the file or its shared memory, where the system tells.

    Read from the system's table: asking by a descriptor of our own would drop this process's locks when
    that is closed (sqlite.org/howtocorrupt.html, 2.2).
    """
    try:
        lines = Path(table).read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    files = _identity_of(location.real), _identity_of(f"{location.real}-shm")
    inodes = {str(found.inode) for found in files if found is not None}
    for line in lines:
        fields = line.split()
        if "POSIX" in fields and "WRITE" in fields and "->" not in fields:
            pid, place = fields[-4], fields[-3]
            if place.rpartition(":")[2] in inodes and pid.isdigit() and int(pid):
                return int(pid)
    return None


#: The log and the shared memory beside a file, by their paths; None for what is not there.
SideFiles = dict[str, Identity | None]


def side_files(location: Location) -> SideFiles:
    """Those that lie beside the file now."""
    return {path: _identity_of(path) for path in (f"{location.real}-wal", f"{location.real}-shm")}


def _identity_of(path: str) -> Identity | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - on the path of every write
    except OSError:
        return None
    return Identity(found.st_dev, found.st_ino)


def refuse_lost_log(location: Location, opened: SideFiles) -> None:
    """Raise when the log or its memory are no longer those that this process writes.

    SQLite itself takes them away with the last connection only. Whoever else did has parted those who
    have the old ones open from those who come later, and neither sees what the other commits
    (sqlite.org/howtocorrupt.html, 1.4).

    Raises:
        StorageReplaced: Says how to keep what is in the old ones.
    """
    for path, known in opened.items():
        if known is None or _identity_of(path) != known:
            raise StorageReplaced(
                f"{location.url}: its -wal or -shm file was deleted or replaced while it was in use. "
                "What is written now would be found by nobody.\n"
                "Stop all programs that use the queue, and start them again: the last to stop writes "
                "what it holds into the file. Then run: gigq db check"
            )


def vanished(location: Location, how: str = "was deleted") -> StorageReplaced:
    """The path leads to another file than before, or to none."""
    return StorageReplaced(
        f"{location.url} {how} while it was in use: what is written "
        "now would be found by nobody.\n"
        "Put the file back and start again, or close the queue and open it anew to begin with what is "
        "there."
    )
