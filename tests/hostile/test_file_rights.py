"""Files: who may read what gigq makes, and what somebody else may have put in a file's place."""

from __future__ import annotations

import logging
import os
import socket
import stat
import sys
import uuid
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import pytest

from gigq.errors import GigqError, StorageError, StorageUnavailable
from gigq.job import Job
from gigq.queue import JobQueue
from gigq.storages.sqlite import strangers
from gigq.storages.sqlite.location import SUFFIXES, identity, locate
from gigq.storages.sqlite.wakeup import folder_of
from gigq.worker import Worker
from tests.hostile.jobs import double
from tests.support import ROOT, as_nobody

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="rights of POSIX")
STRANGER = 54_321


@contextmanager
def umask(mask):
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def mode(path):
    return stat.S_IMODE(Path(path).lstat().st_mode)


def fill(target):
    with JobQueue(str(target)) as queue:
        return queue.submit(Job("a", double, {"value": 1}))


class TestANewFile:
    def test_is_its_owners_alone(self, tmp_path, in_example, fault_case):
        """The database, its log and shared memory, the gate and the folder of those who wait, whatever the
        umask: nobody else may read parameters, or write what workers run."""
        looked = 0
        masks = (0o000, 0o002, 0o022, 0o077, 0o777)
        for mask in masks:
            with in_example(f"umask {mask:03o}"), umask(mask):
                folder = tmp_path / f"{mask:03o}"
                folder.mkdir()
                folder.chmod(0o700)
                looked += self.look_at(folder)
        fault_case.record(
            "loose and strict umasks", "P10", faults=len(masks), jobs=looked, doubled=None,
            overlapping=None,
        )  # fmt: skip

    def look_at(self, folder):
        path = folder / "jobs.db"
        with JobQueue(str(path)) as queue:
            queue.submit(Job("a", double, {"value": 1}))
            with Worker(queue.storage) as worker:
                worker.run_until_empty()
            made = sorted(folder.iterdir())
            assert [each.name for each in made] == [
                "jobs.db", "jobs.db-gate", "jobs.db-shm", "jobs.db-wal",
            ]  # fmt: skip
            waiting = folder_of(identity(locate(str(path))))
            for each in (*made, waiting, waiting.parent):
                if each.exists():
                    assert mode(each) & 0o077 == 0, each
            assert mode(path) == 0o600
        return len(made)

    @pytest.mark.parametrize("mask", [0o000, 0o022])
    def test_made_by_a_command_is_its_owners_too(self, tmp_path, mask, cli):
        """Backups, exports, and an import's queue."""
        path = str(tmp_path / "jobs.db")
        with umask(mask):
            fill(path)
            assert cli("--db", path, "export", str(tmp_path / "out.jsonl")).code == 0
            assert cli("--db", path, "db", "backup", str(tmp_path / "copy.db")).code == 0
            other = str(tmp_path / "other.db")
            assert cli("--db", other, "import", str(tmp_path / "out.jsonl")).code == 0

        for each in tmp_path.iterdir():
            assert mode(each) & 0o077 == 0, each

    def test_that_was_there_keeps_its_rights(self, tmp_path):
        """An empty file that somebody made for a group stays the group's, and what is beside it too."""
        path = tmp_path / "jobs.db"
        path.touch()
        path.chmod(0o660)

        with JobQueue(str(path)) as queue:
            queue.submit(Job("a", double, {"value": 1}))
            assert mode(path) == 0o660
            assert mode(f"{path}-wal") == 0o660


class TestALink:
    def test_of_ones_own_is_followed(self, tmp_path):
        """A link that its user made leads to the queue; the files beside it lie beside the real one."""
        folder = tmp_path / "real"
        folder.mkdir()
        (tmp_path / "link.db").symlink_to(folder / "jobs.db")

        job_id = fill(tmp_path / "link.db")

        with JobQueue(str(folder / "jobs.db")) as queue:
            assert queue.get_status(job_id)["exists"]
        assert sorted(each.name for each in tmp_path.iterdir()) == ["link.db", "real"]

    def test_of_a_stranger_in_a_public_folder_is_refused(self, tmp_path, in_public, given_away):
        """In `/tmp` somebody else's link does not choose where a queue is made or read."""
        in_public.symlink_to(tmp_path / "precious")
        stranger = given_away(in_public)

        with pytest.raises(StorageUnavailable, match=f"the link .* belongs to user {stranger}"):
            JobQueue(str(in_public)).submit(Job("a", double, {"value": 1}))

        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
    def test_beside_the_database_is_never_followed(self, tmp_path, suffix):
        """What it leads to is not read as a log, and not written."""
        path, precious = tmp_path / "jobs.db", tmp_path / "precious"
        fill(path)
        precious.write_bytes(b"precious" * 1_000)
        Path(f"{path}{suffix}").unlink(missing_ok=True)
        Path(f"{path}{suffix}").symlink_to(precious)

        with suppress(StorageError):
            fill(path)

        assert precious.read_bytes() == b"precious" * 1_000

    def test_in_place_of_the_gate_is_left_aside(self, tmp_path):
        """The process id that a gate holds is not written into what a link leads to; work goes on."""
        path, precious = tmp_path / "jobs.db", tmp_path / "precious"
        fill(path)
        precious.write_bytes(b"precious" * 10)
        gate = Path(f"{path}-gate")

        for put in (gate.symlink_to, gate.hardlink_to):
            gate.unlink()
            put(precious)
            fill(path)
            assert precious.read_bytes() == b"precious" * 10

    def test_in_place_of_the_gate_that_leads_nowhere_makes_nothing(self, tmp_path):
        """A link to a file that is not there makes none."""
        path = tmp_path / "jobs.db"
        fill(path)
        gate = Path(f"{path}-gate")
        gate.unlink()
        gate.symlink_to(tmp_path / "elsewhere")

        fill(path)

        assert not (tmp_path / "elsewhere").exists()

    @pytest.mark.parametrize("kind", ["link", "dangling"])
    def test_in_place_of_a_backup_is_not_written_through(self, tmp_path, cli, kind):
        """A backup or export overwrites nothing, and makes nothing where a link leads."""
        path, precious = tmp_path / "jobs.db", tmp_path / "precious"
        fill(path)
        if kind == "link":
            precious.write_bytes(b"precious")
        for name, words in (("b", ["db", "backup"]), ("e", ["export"])):
            (tmp_path / name).symlink_to(precious)
            cli("--db", str(path), *words, str(tmp_path / name))

        assert precious.exists() is (kind == "link")
        if kind == "link":
            assert precious.read_bytes() == b"precious"

    @pytest.mark.parametrize("make", [os.mkfifo, os.makedirs])
    @pytest.mark.parametrize("suffix", ["", "-wal", "-gate"])
    def test_is_not_the_only_thing_that_is_no_file(self, tmp_path, make, suffix):
        """A pipe or a folder in a file's place: an error or none, and no waiting for ever."""
        path = tmp_path / "jobs.db"
        if suffix:
            fill(path)
        Path(f"{path}{suffix}").unlink(missing_ok=True)
        make(f"{path}{suffix}")

        with suppress(GigqError):
            fill(path)

    def test_a_socket_in_the_databases_place_is_refused(self, tmp_path, monkeypatch):
        """Neither opened nor removed."""
        monkeypatch.chdir(tmp_path)
        with socket.socket(socket.AF_UNIX) as other:
            other.bind("jobs.db")
            with pytest.raises(GigqError):
                fill(tmp_path / "jobs.db")
        assert stat.S_ISSOCK((tmp_path / "jobs.db").lstat().st_mode)


@pytest.fixture
def in_public():
    """A name in `/tmp`, where everybody may make files, and only owners replace theirs."""
    assert mode("/tmp") == 0o1777
    path = Path(f"/tmp/gigq-test-{uuid.uuid4().hex}")
    yield path
    for suffix in SUFFIXES:
        Path(f"{path}{suffix}").unlink(missing_ok=True)


@pytest.fixture
def given_away(monkeypatch):
    """Let somebody else own a file or link, and say who; who cannot give it away is somebody else."""

    def give(path):
        if ROOT:
            os.chown(path, STRANGER, STRANGER, follow_symlinks=False)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        return path.lstat().st_uid

    return give


class TestAPublicFolder:
    @pytest.mark.parametrize("suffix", SUFFIXES[1:])
    def test_with_a_strangers_file_beside_the_database_is_refused(
        self, in_public, suffix, given_away
    ):
        """A log that somebody else put there would become a part of the queue."""
        fill(in_public)
        put = Path(f"{in_public}{suffix}")
        put.touch()
        stranger = given_away(put)

        with pytest.raises(StorageUnavailable, match=f"belongs to user {stranger}"):
            fill(in_public)

        assert put.exists()

    def test_with_a_strangers_queue_is_refused(self, in_public, given_away):
        """Whoever put a queue there first would decide what workers run."""
        fill(in_public)
        given_away(in_public)

        with pytest.raises(StorageUnavailable, match="say what workers are to run"):
            Worker(str(in_public)).run_until_empty()

    def test_is_otherwise_as_good_as_any(self, in_public, gigq_log):
        """One's own queue in `/tmp` works, and there is nothing to warn of."""
        fill(in_public)
        with Worker(str(in_public)) as worker:
            worker.run_until_empty()

        assert "can be written to" not in gigq_log.text

    def test_of_a_strangers_waiting_place_is_not_used(self, tmp_path, monkeypatch):
        """Sockets are never made in a folder that somebody else made or may write to."""
        found = identity(locate(str(tmp_path)))
        place = folder_of(found)
        assert place is not None
        place.chmod(0o777)
        try:
            assert folder_of(found) is None
        finally:
            place.chmod(0o700)
            place.rmdir()


class TestAFolderThatOthersMayWriteTo:
    @pytest.mark.parametrize(("rights", "who"), [(0o777, "everybody"), (0o770, "group")])
    def test_is_warned_of_once(self, tmp_path, gigq_log, rights, who, monkeypatch):
        """When a worker begins, with what to do."""
        monkeypatch.setattr(strangers, "_warned", set())
        folder = tmp_path / "shared"
        folder.mkdir()
        if who == "group":
            os.chown(folder, -1, STRANGER if ROOT else os.getgid())
        folder.chmod(rights)
        fill(folder / "jobs.db")

        for _ in range(2):
            with Worker(str(folder / "jobs.db")) as worker:
                worker.run_until_empty()

        said = f"'{folder}' can be written to by"
        told = [each for each in gigq_log.records if said in each.getMessage()]
        if who == "everybody" or ROOT:
            (record,) = told
            assert record.levelno == logging.WARNING
            assert who in record.getMessage()
            assert "chmod go-w" in record.getMessage()

    def test_is_found_by_the_doctor(self, tmp_path, cli):
        """And it is a problem there, with the cure."""
        folder = tmp_path / "shared"
        folder.mkdir()
        folder.chmod(0o777)
        fill(folder / "jobs.db")

        ran = cli("--db", str(folder / "jobs.db"), "doctor")

        assert ran.code == 1
        assert f"Everybody may make files in {folder}" in ran.out

    def test_further_up_is_told_as_well(self, tmp_path, gigq_log, monkeypatch, cli):
        """Who may rename a folder above puts another one in its place, whatever rights it has itself."""
        monkeypatch.setattr(strangers, "_warned", set())
        above = tmp_path / "above"
        folder = above / "mine"
        folder.mkdir(parents=True)
        above.chmod(0o777)
        folder.chmod(0o700)
        fill(folder / "jobs.db")

        with Worker(str(folder / "jobs.db")) as worker:
            worker.run_until_empty()
        ran = cli("--db", str(folder / "jobs.db"), "doctor")

        assert f"'{above}' can be written to by everybody" in gigq_log.text
        assert f"Everybody may make and rename folders in {above}" in ran.out

    def test_may_be_so_because_it_is_theirs(self, tmp_path, monkeypatch):
        """Also behind the sticky bit, which holds the owner of a folder back from nothing."""
        tmp_path.chmod(0o1755)
        owner = tmp_path.stat().st_uid
        monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
        root = owner == 0

        assert strangers.others_who_may_write(str(tmp_path)) == ("" if root else f"user {owner}")
        if root:
            os.chown(tmp_path, STRANGER, -1)
            assert strangers.others_who_may_write(str(tmp_path)) == f"user {STRANGER}"

    @pytest.mark.parametrize("rights", [0o700, 0o755, 0o1777])
    def test_is_no_other_folder(self, tmp_path, rights):
        """Where nobody else can replace the file there is no warning."""
        tmp_path.chmod(rights)

        assert strangers.others_who_may_write(str(tmp_path)) == ""

    def test_is_not_that_of_a_private_group(self, tmp_path):
        """Many systems give each user a group of their own, and a umask of 002."""
        tmp_path.chmod(0o775)
        import pwd

        me = pwd.getpwuid(os.geteuid())
        alone = [each.pw_name for each in pwd.getpwall() if each.pw_gid == me.pw_gid] == [
            me.pw_name
        ]
        os.chown(tmp_path, -1, me.pw_gid)

        assert (strangers.others_who_may_write(str(tmp_path)) == "") is alone


class TestAnotherUser:
    def test_may_neither_read_nor_write_a_queue(self, in_public):
        """What the rights are for, tried: nobody but its owner opens the file."""
        with umask(0o000):
            fill(in_public)

        with as_nobody(), nullcontext() if not ROOT else pytest.raises(PermissionError):
            in_public.read_bytes()
        with as_nobody(), nullcontext() if not ROOT else pytest.raises(GigqError):
            JobQueue(str(in_public)).list_jobs()
