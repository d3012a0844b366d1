"""Whose file it is, and what is said when it cannot be used."""

from __future__ import annotations

import os
import sqlite3
import stat
import tempfile
from pathlib import Path

import pytest

from gigq.contracts.storage import Capability, JobStatus
from gigq.errors import (
    ConfigError,
    ForeignDatabase,
    NotInitialized,
    QueueClosed,
    SchemaTooNew,
    StorageCorrupt,
    StorageReadOnly,
    StorageReplaced,
    StorageUnavailable,
)
from gigq.storages.sqlite import SqliteStorage
from gigq.storages.sqlite.location import Location, file_system, locate, refuse_network
from gigq.storages.sqlite.schema import APPLICATION_ID, SUPPORTED
from tests.integration.sqlite_kit import answer_of, job, python, somebody_elses_rights
from tests.support import eventually


@pytest.fixture
def path(tmp_path):
    return tmp_path / "jobs.db"


def made(path) -> SqliteStorage:
    storage = SqliteStorage(path)
    storage.initialize()
    storage.open()
    return storage


def content(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir()}


class TestAUrl:
    @pytest.mark.parametrize(
        ("url", "path"),
        [
            ("sqlite:///jobs.db", "jobs.db"),
            ("sqlite:////srv/my jobs.db", "/srv/my jobs.db"),
            ("sqlite:////srv/a%3Fb%25.db", "/srv/a?b%.db"),
            ("plain?name.db", "plain?name.db"),
            (Path("some/where.db"), "some/where.db"),
        ],
    )
    def test_names_a_file(self, url, path):
        """Three slashes for a relative path, four for an absolute one; without :// it is a path."""
        assert locate(url).path == path
        assert locate(locate(url).url).path == path

    @pytest.mark.parametrize(
        ("url", "said"),
        [
            ("sqlite:///a.db?sync=full", "option 'sync'"),
            ("sqlite:///a.db?durability=maybe", "durability='maybe'"),
            ("sqlite:///a.db?busy_timeout=soon", "busy_timeout='soon'"),
            ("sqlite:///a.db?busy_timeout=-1", "busy_timeout='-1'"),
            ("sqlite:///a.db?busy_timeout=nan", "busy_timeout='nan'"),
            ("sqlite://host/a.db", "sqlite:////srv/jobs.db"),
            ("sqlite:///", "names no file"),
            (":memory:", "memory://"),
            ("sqlite:///:memory:", "memory://"),
            ("postgresql:///a", "sqlite:///jobs.db"),
        ],
    )
    def test_that_cannot_be_used_says_what_is_wrong(self, url, said):
        """The option or value is named, and what would do instead."""
        with pytest.raises(ConfigError) as caught:
            SqliteStorage(url)
        assert said in str(caught.value)

    def test_chooses_the_durability(self, path):
        """`full` syncs at each commit and says `durable`; `normal` does neither."""
        levels = {}
        for durability in ("full", "normal"):
            storage = SqliteStorage(f"sqlite:///{path}?durability={durability}")
            storage.initialize()
            storage.open()
            storage.add([job()])
            levels[durability] = storage._database.maintain(
                lambda connection: connection.execute("PRAGMA synchronous").fetchone()[0], 5
            )
            assert (Capability.DURABLE in storage.capabilities) == (durability == "full")
            storage.close()
        assert levels == {"full": 2, "normal": 1}


class TestInitializing:
    @pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
    def test_makes_files_that_only_the_owner_can_read(self, path, umask):
        """Parameters may be secret; the umask decides nothing."""
        before = os.umask(umask)
        try:
            storage = made(path)
            storage.add([job()])
        finally:
            os.umask(before)
        modes = {stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
        assert modes == {0o600}
        assert {each.name for each in path.parent.iterdir()} >= {"jobs.db", "jobs.db-wal"}
        storage.close()

    @pytest.mark.parametrize("kind", ["empty file", "empty database"])
    def test_takes_what_is_nobodys(self, path, kind):
        """An empty file, or a database without any object, becomes a queue."""
        path.touch()
        if kind == "empty database":
            connection = sqlite3.connect(path)
            connection.executescript("CREATE TABLE t(x); DROP TABLE t")
            connection.close()
            assert path.stat().st_size > 0
        storage = SqliteStorage(path)
        assert storage.version().found is None
        storage.initialize()
        storage.open()
        assert storage.add([job()])

    def test_twice_changes_nothing(self, path):
        """Every JobQueue does it."""
        made(path).close()
        before = path.read_bytes()
        SqliteStorage(path).initialize()
        assert path.read_bytes() == before
        assert SqliteStorage(path).version().found == SUPPORTED

    def test_by_many_processes_at_once_makes_one_queue(self, path):
        """Whoever comes late finds it done."""
        script = (
            "import sys; from gigq.storages.sqlite import SqliteStorage\n"
            "storage = SqliteStorage(sys.argv[1]); sys.stdin.readline()\n"
            "storage.initialize(); storage.open(); print(storage.version())"
        )
        processes = [python(script, path) for _ in range(4)]
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        answers = {answer_of(process) for process in processes}
        assert len(answers) == 1
        assert made(path).check() == []

    def test_in_a_missing_folder_names_the_folder(self, tmp_path):
        """And makes none: a typing error must not become a folder."""
        with pytest.raises(StorageUnavailable, match=r"the folder .*nowhere.* does not exist"):
            SqliteStorage(tmp_path / "nowhere" / "jobs.db").initialize()
        assert list(tmp_path.iterdir()) == []

    def test_in_a_folder_of_somebody_else_says_so(self):
        """Permission is the reason, not "unable to open database file"."""
        with tempfile.TemporaryDirectory() as name:
            Path(name).chmod(0o755)
            with (
                somebody_elses_rights(Path(name)),
                pytest.raises(StorageUnavailable, match="may not write to the folder"),
            ):
                SqliteStorage(f"{name}/jobs.db").initialize()

    def test_of_a_folder_says_that_it_is_one(self, tmp_path):
        """A path to a folder is a common slip."""
        with pytest.raises(StorageUnavailable, match="it is a folder"):
            SqliteStorage(tmp_path).initialize()


def look_at(path: Path) -> None:
    storage = SqliteStorage(path)
    storage.open()
    storage.find()


class TestOpening:
    def test_a_missing_file_says_so_and_makes_none(self, path):
        """`initialize=False` on the wrong path must not leave a file behind."""
        with pytest.raises(NotInitialized, match="does not exist") as caught:
            SqliteStorage(path).open()
        assert str(path) in str(caught.value)
        assert list(path.parent.iterdir()) == []

    def test_an_empty_file_is_not_initialized(self, path):
        """And stays empty."""
        path.touch()
        with pytest.raises(NotInitialized, match="is empty"):
            SqliteStorage(path).open()
        assert content(path.parent) == {"jobs.db": b""}

    @pytest.mark.parametrize("action", ["initialize", "open", "version"])
    @pytest.mark.parametrize("journal", ["delete", "wal"])
    def test_another_programs_database_is_left_as_it_was(self, path, action, journal):
        """Byte for byte, nothing beside it, and it says whose it seems to be."""
        connection = sqlite3.connect(path)
        connection.execute(f"PRAGMA journal_mode = {journal}")
        connection.executescript("PRAGMA application_id = 77; CREATE TABLE theirs(x)")
        connection.close()
        before = content(path.parent)

        with pytest.raises(ForeignDatabase, match="application id 77") as caught:
            getattr(SqliteStorage(path), action)()

        assert "another program" in str(caught.value)
        assert content(path.parent) == before

    @pytest.mark.parametrize("action", ["initialize", "open", "version"])
    @pytest.mark.parametrize("data", [b"hello", b"x" * 5_000, b"SQLite format 3\0" + b"x" * 200])
    def test_what_is_no_database_is_left_as_it_was(self, path, action, data):
        """A text file given by mistake survives it."""
        path.write_bytes(data)
        with pytest.raises(ForeignDatabase, match="no SQLite database"):
            getattr(SqliteStorage(path), action)()
        assert content(path.parent) == {"jobs.db": data}

    def test_a_newer_schema_names_both_versions(self, path):
        """An old worker must not write into what it does not know."""
        made(path).close()
        connection = sqlite3.connect(path)
        connection.execute(f"PRAGMA user_version = {SUPPORTED + 1}")
        connection.close()
        before = path.read_bytes()
        for action in ("initialize", "open"):
            with pytest.raises(SchemaTooNew) as caught:
                getattr(SqliteStorage(path), action)()
            assert f"version {SUPPORTED + 1}" in str(caught.value)
            assert f"up to {SUPPORTED}" in str(caught.value)
        assert path.read_bytes() == before
        assert SqliteStorage(path).version().found == SUPPORTED + 1

    def test_marks_the_file_as_ours(self, path):
        """Other programs can see whose it is, in the header of the file itself."""
        made(path).close()
        header = path.read_bytes()[:100]
        assert int.from_bytes(header[68:72], "big") == APPLICATION_ID
        assert int.from_bytes(header[60:64], "big") == SUPPORTED

    def test_a_damaged_file_says_what_to_do(self, path):
        """Not SQLite's own words alone."""
        storage = made(path)
        storage.add([job() for _ in range(500)])
        storage.close()
        data = bytearray(path.read_bytes())
        for page in range(1, len(data) // 4096):
            data[page * 4096 : page * 4096 + 200] = b"\xff" * 200
        path.write_bytes(data)

        with pytest.raises(StorageCorrupt, match="gigq db check") as caught:
            look_at(path)
        assert isinstance(caught.value.__cause__, sqlite3.DatabaseError)

    def test_a_closed_storage_says_that_it_is_closed(self, path):
        """Also when it was never opened."""
        storage = SqliteStorage(path)
        with pytest.raises(QueueClosed, match="not open"):
            storage.counts()


def as_guest(folder: Path) -> None:
    """A writer of its own, as in another process: this one's was opened by the owner."""
    guest = SqliteStorage(f"sqlite:///{folder}/jobs.db?durability=normal")
    guest.open()
    try:
        guest.add([job()])
    finally:
        guest.close()


class TestErasing:
    def test_removes_all_files_of_the_queue(self, path):
        """The folder is as it was before; erasing nothing does nothing."""
        storage = made(path)
        storage.add([job()])
        storage.close()
        storage.erase()
        assert list(path.parent.iterdir()) == []
        storage.erase()

    def test_spares_what_is_not_ours(self, path):
        """A wrong path must not cost anybody a file."""
        path.write_bytes(b"precious " * 1_000)
        with pytest.raises(ForeignDatabase):
            SqliteStorage(path).erase()
        assert path.read_bytes() == b"precious " * 1_000


class TestLooking:
    @pytest.mark.parametrize("in_use", [False, True])
    def test_needs_no_right_to_write(self, in_use):
        """A colleague may look at a queue that is not theirs; writing says why it cannot be."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            folder.chmod(0o755)
            storage = made(folder / "jobs.db")
            storage.add([job("seen")])
            if not in_use:
                storage.close()
            for each in folder.iterdir():
                each.chmod(0o644)

            with somebody_elses_rights(folder):
                guest = SqliteStorage(folder / "jobs.db")
                guest.open()
                assert [each.name for each in guest.find().jobs] == ["seen"]
                assert guest.counts() == {"default": {JobStatus.PENDING: 1}}
                with pytest.raises(StorageReadOnly, match="permissions"):
                    as_guest(folder)
                guest.close()
            storage.close()


class TestAReplacedFile:
    @pytest.mark.parametrize("how", ["deleted", "replaced"])
    @pytest.mark.parametrize("call", ["add", "wait"])
    def test_is_an_error_and_not_silence(self, path, how, call):
        """What is written into a deleted file is found by nobody; an idle worker notices too."""
        storage = made(path)
        storage.add([job()])
        storage.wait(0)
        path.unlink()
        if how == "replaced":
            path.touch()

        with pytest.raises(StorageReplaced, match=how):
            storage.add([job()]) if call == "add" else storage.wait(5)

    @pytest.mark.parametrize("how", ["deleted", "replaced"])
    def test_is_soon_noticed_by_who_only_reads(self, path, how):
        """A connection that is kept would go on to show what nobody else sees."""
        storage = made(path)
        storage.counts()
        path.unlink()
        if how == "replaced":
            path.touch()

        def is_refused():
            try:
                storage.counts()
            except StorageReplaced as error:
                return how in str(error)
            return False

        eventually(is_refused)


class TestANetworkFileSystem:
    def test_is_refused_with_the_reason(self, tmp_path, monkeypatch):
        """SQLite's log needs memory that both sides share."""
        monkeypatch.setattr("gigq.storages.sqlite.location.file_system", lambda *_: "nfs4")
        with pytest.raises(StorageUnavailable, match=r"network file system \(nfs4\)"):
            refuse_network(locate(tmp_path / "jobs.db"))

    def test_is_found_by_the_longest_mount(self, tmp_path):
        """As the system lists it, with blanks written as it writes them."""
        mounts = tmp_path / "mounts"
        mounts.write_text(
            "/dev/a / ext4 rw 0 0\nhost:/x /mnt/my\\040share nfs rw 0 0\n"
            "tmpfs /mnt/my\\040share/fast tmpfs rw 0 0\nbroken\n"
        )
        assert file_system("/mnt/my share/jobs.db", str(mounts)) == "nfs"
        assert file_system("/mnt/my share/fast/jobs.db", str(mounts)) == "tmpfs"
        assert file_system("/mnt/my shared/jobs.db", str(mounts)) == "ext4"
        assert file_system("/x", str(tmp_path / "none")) == ""
        assert isinstance(locate("x.db"), Location)
