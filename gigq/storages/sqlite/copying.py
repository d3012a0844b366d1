"""A backup: a consistent copy of the file, which appears whole or not at all.

Of a copy that was half made SQLite would roll everything back, and an empty file looks like a queue to
which nothing was ever submitted. So it is written beside its place, synced, and then given its name. A
process that is killed meanwhile leaves `.NAME.….part` behind, and the name is free for the next try.
"""

from __future__ import annotations

import errno
import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from gigq.errors import GigqError, StorageUnavailable
from gigq.storages.sqlite.failures import copy_failed, is_of_copy
from gigq.storages.sqlite.location import private_file, sync_folder

#: What `link` says on file systems without hard links (FAT, some of FUSE and of networks).
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


@contextmanager
def appearing_whole(target: str) -> Iterator[Path]:
    """A place to write to that becomes `target` at the end, and is gone where that is not reached.

    Raises:
        FileExistsError: Something is there already; it was left alone.
    """
    place = Path(target)
    _refuse_existing(place)
    part = place.with_name(f".{place.name}.{secrets.token_hex(4)}.part")
    try:
        yield part
        _give_name(part, place)
    except BaseException as error:
        _remove(part)
        if isinstance(error, OSError) and not isinstance(error, FileExistsError | GigqError):
            raise copy_failed(target, error) from error
        raise


def copy(connection: sqlite3.Connection, part: Path, target: str) -> None:
    """Copy all to a new file that only its owner can read, and sync it.

    Args:
        target: What it will be called, for errors.
    """
    try:
        descriptor = _new_file(part, target)
        try:
            with closing(sqlite3.connect(part, isolation_level=None)) as copied:
                connection.backup(copied)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except (OSError, sqlite3.Error) as error:
        if isinstance(error, GigqError) or not is_of_copy(error):
            raise
        raise copy_failed(target, error) from error


def _new_file(part: Path, target: str) -> int:
    try:
        return private_file(str(part), os.O_EXCL)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise StorageUnavailable(
            f"The backup cannot be written to {target!r}: {error}.\n"
            "Nothing was changed. Choose a folder that exists and that you may write to."
        ) from error


def _give_name(part: Path, place: Path) -> None:
    """In the place of its working name the copy gets its own, unless somebody else took that."""
    try:
        os.link(part, place)
    except FileExistsError:
        _refuse_existing(place)
        raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _refuse_existing(place)
        part.rename(place)
    try:
        part.unlink(missing_ok=True)
        # Until now a power cut could take the name.
        sync_folder(place.parent)
    except BaseException:
        _remove(place)  # whoever reads that it failed finds nothing that looks done
        raise


def _refuse_existing(place: Path) -> None:
    if os.path.lexists(place):
        raise FileExistsError(
            errno.EEXIST,
            "There is something already; a backup overwrites nothing. Choose a new name",
            str(place),
        )


def _remove(path: Path) -> None:
    for each in (path, path.with_name(f"{path.name}-journal")):
        with suppress(OSError):
            each.unlink()
