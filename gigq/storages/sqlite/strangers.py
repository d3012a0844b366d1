"""Other people in the folder of a database: what they may have put there, and who they are.

Whoever may write to the folder can put a link in the place of the file, or a log beside it that becomes a
part of it. Where everybody may (`/tmp`) but only owners may replace files (the sticky bit), what belongs
to a stranger is refused, by the rule of Linux's `fs.protected_regular` and `fs.protected_symlinks`
(docs.kernel.org/admin-guide/sysctl/fs.html). Elsewhere nothing can be told from what is meant, and a
folder that others may write to is warned of, once.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from gigq.errors import StorageUnavailable
from gigq.storages.sqlite.location import SUFFIXES
from gigq.text import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gigq.storages.sqlite.location import Location

logger = logging.getLogger(__name__)
EVERYBODY = "everybody"
_warned: set[str] = set()
_warning = threading.Lock()


def refuse_strangers(location: Location) -> None:
    """Raise where somebody else may have chosen what is read.

    Raises:
        StorageUnavailable: Names the file or link, and whose it is.
    """
    if not hasattr(os, "geteuid"):
        return
    written = Path(location.path)
    _refuse_a_strangers(location, written, only_links=True)
    for suffix in SUFFIXES:
        _refuse_a_strangers(location, Path(location.real + suffix), only_links=False)


def _refuse_a_strangers(location: Location, path: Path, *, only_links: bool) -> None:
    try:
        found, folder = path.lstat(), path.parent.stat()
    except OSError:
        return  # it is not there, or cannot be looked at: opening it says so better
    if only_links and not stat.S_ISLNK(found.st_mode):
        return
    public = stat.S_ISVTX | stat.S_IWOTH
    if folder.st_mode & public != public or found.st_uid in (os.geteuid(), 0, folder.st_uid):
        return
    what = "link" if stat.S_ISLNK(found.st_mode) else "file"
    raise StorageUnavailable(
        f"{location.url}: the {what} {shown(str(path))} belongs to user {found.st_uid}, and everybody may "
        f"put files into {shown(str(path.parent))}: it may lead anywhere, and say what workers are to run."
        "\nIt was not opened. Keep the queue in a folder that only its users may write to."
    )


def warn_of_folder(location: Location) -> None:
    """Log once that others may write to the folder, and so put another file in the database's place."""
    if not hasattr(os, "geteuid"):
        return
    folder = Path(location.real).parent
    with _warning:
        if str(folder) in _warned:
            return
        _warned.add(str(folder))
    for place, who in others_who_may_replace(folder):
        logger.warning(
            "%s can be written to by %s: they can put another file in the place of %s, and so decide what "
            "workers run. Take that right away (chmod go-w, chown), or move the queue: mkdir -m 700.",
            shown(str(place)), who, shown(Path(location.real).name),
        )  # fmt: skip


def others_who_may_replace(folder: Path) -> Iterator[tuple[Path, str]]:
    """The folder, and each above it, where others may put another one in the place of what is in it;
    and who. Above, only what everybody may is looked at: groups and owners there are the system's."""
    if who := others_who_may_write(str(folder)):
        yield folder, who
    for above in folder.parents:
        if others_who_may_write(str(above)) == EVERYBODY:
            yield above, EVERYBODY


def others_who_may_write(folder: str) -> str:
    """Who beside this user and root may replace files in a folder; "" for nobody."""
    try:
        found = os.stat(folder)  # noqa: PTH116 - may hold bytes that are no text
    except OSError:
        return ""
    if found.st_uid not in (os.geteuid(), 0):
        return f"user {found.st_uid}"  # the sticky bit holds no folder's owner back
    if found.st_mode & stat.S_ISVTX:
        return ""  # files are replaced by their owners alone
    if found.st_mode & stat.S_IWOTH:
        return EVERYBODY
    if found.st_mode & stat.S_IWGRP and not _is_private_group(found.st_gid, found.st_uid):
        return f"group {found.st_gid}"
    return ""


def _is_private_group(group: int, owner: int) -> bool:
    """Whether nobody but the owner is known to be in the group, as where each user has one of their own."""
    import grp
    import pwd

    try:
        members = grp.getgrgid(group).gr_mem
        name = pwd.getpwuid(owner).pw_name
    except KeyError:
        return False
    primary = {each.pw_name for each in pwd.getpwall() if each.pw_gid == group}
    return {*members, *primary} <= {name}
