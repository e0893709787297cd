"""Opening the ledger: the only place that knows it is SQLite.

Durability is checked on every connection, creation happens under a lock, aside, and is renamed into
place; upgrading is the daemon's alone, after a backup.  A damaged ledger never means "start empty".
"""

from __future__ import annotations

import os
import shlex
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import peewee
from peewee import Model, SqliteDatabase

import ftd
from ftd import faults
from ftd.errors import LedgerError
from ftd.files import fsync_file, fsync_folder, locked, make_folder
from ftd.layout import Home

BUSY_TIMEOUT_S = 60
PassingTrouble = peewee.OperationalError  # busy, disk full, ...: nothing was written
NETWORK_FILESYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "afs"})
MIGRATIONS = Path(ftd.__file__).resolve().parent.parent / "migrations"
SCHEMA_VERSION = 2  # the number of the newest migration, kept in PRAGMA user_version


class Ledger:
    """An open ledger.  Everything written goes through :meth:`transaction`."""

    def __init__(self, db: SqliteDatabase) -> None:
        self.db = db

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """One atomic, durable change (BEGIN IMMEDIATE ... COMMIT); nested: a savepoint."""
        try:
            with self.db.atomic():
                yield
        except PassingTrouble as error:
            # SQLite has rolled back by itself when a COMMIT fails; peewee's own attempt then hides
            # why it failed.
            cause = error.__context__
            if "cannot rollback" in str(error) and isinstance(cause, sqlite3.Error):
                cause = cause.__context__
            if isinstance(cause, PassingTrouble):
                raise cause from None
            raise

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Several reads of one moment (a deferred transaction that never writes)."""
        with self.db.atomic("DEFERRED"):
            yield

    def rows(self, query: Any) -> list[dict[str, Any]]:
        """All rows of a select as dictionaries."""
        return list(query.dicts().execute(self.db))

    def rows_of(self, statement: str, values: Sequence[Any]) -> list[dict[str, Any]]:
        """All rows of a select whose SQL is at hand: building it can take longer than the rest."""
        cursor = self.db.execute_sql(statement, values)  # type: ignore[no-untyped-call]
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    def row(self, query: Any) -> dict[str, Any] | None:
        """The first row of a select, or None."""
        return next(iter(self.rows(query.limit(1))), None)

    def values(self, query: Any) -> list[Any]:
        """The first column of a select."""
        return [row[0] for row in query.tuples().execute(self.db)]

    def write(self, query: Any) -> int:
        """Execute an insert, update or delete; the new row's id, or the number of rows changed."""
        return int(query.execute(self.db) or 0)

    def insert(self, table: type[Model], **fields: Any) -> int:
        """Insert one row; its id."""
        return self.write(table.insert(**fields))

    def insert_all(
        self, table: type[Model], rows: Iterable[Mapping[str, Any]], *, replace: bool = False
    ) -> None:
        """Insert rows that all have the same fields, through one prepared statement.

        Far faster than peewee's own bulk insert, which builds SQL text for every value.
        """
        rows = iter(rows)
        first = next(rows, None)
        if first is None:
            return
        fields = [table._meta.fields[name] for name in first]
        columns = ", ".join(f'"{field.column_name}"' for field in fields)
        marks = ", ".join("?" * len(fields))
        verb = "INSERT OR REPLACE" if replace else "INSERT"
        statement = f'{verb} INTO "{table._meta.table_name}" ({columns}) VALUES ({marks})'

        def values(row: Mapping[str, Any]) -> list[Any]:
            return [field.db_value(row[field.name]) for field in fields]

        cursor = self.db.connection().cursor()  # type: ignore[no-untyped-call]
        cursor.execute(statement, values(first))
        cursor.executemany(statement, (values(row) for row in rows))

    def close(self) -> None:
        """Close the connection."""
        self.db.close()


def chunks(values: Sequence[Any], size: int = 10_000) -> Iterator[Sequence[Any]]:
    """Slices short enough for SQLite's limit of bound values (32,766)."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


def open_ledger(home: Home, *, create: bool = False) -> Ledger:
    """Open a home's ledger; with `create`, make home and ledger when there is none yet.

    Raises LedgerError when it is absent, damaged, of another schema, or on a network filesystem.
    """
    if not home.ledger.exists():
        if not create:
            raise LedgerError(
                f"no ledger at {home.ledger}. Run 'ftd init' or enqueue a spec, or check --home"
            )
        _create(home)
    _recognise(home.ledger)
    ledger = Ledger(_connect(home.ledger))
    try:
        _check(ledger, home)
    except BaseException:
        ledger.close()
        raise
    return ledger


@contextmanager
def opened(home: Home, *, create: bool = False) -> Iterator[Ledger]:
    """A home's ledger for the length of a block, as :func:`open_ledger` opens it.

    What SQLite finds wrong within the block is said in one line too: raises LedgerError.
    """
    ledger = open_ledger(home, create=create)
    try:
        yield ledger
    except PassingTrouble as error:
        raise _refused(home.ledger, error) from error
    except peewee.DatabaseError as error:
        if type(error) is not peewee.DatabaseError:  # a broken constraint: our own mistake
            raise
        raise damaged(home.ledger, error) from error
    finally:
        ledger.close()


def upgrade(home: Home) -> list[str]:
    """Bring an existing ledger to this version's schema; the names of the migrations applied.

    Only the daemon calls this.  A backup is made first, under the lock that creation uses.
    """
    with locked(home.ledger_lock):
        _recognise(home.ledger)
        db = _connect(home.ledger)
        try:
            version = _version(db, home.ledger)
            if version >= SCHEMA_VERSION:
                return []
            backup(home, f"before-schema-{SCHEMA_VERSION}")
            return _migrate(db)
        except (PassingTrouble, sqlite3.OperationalError) as error:
            raise _refused(home.ledger, error) from error
        finally:
            db.close()


def backup(home: Home, label: str) -> Path:
    """An online copy of the ledger under ``backups/``; everybody else goes on meanwhile.

    Raises LedgerError when the copy turns out to be damaged (then it is not kept), OSError or
    sqlite3.Error when it cannot be made.
    """
    make_folder(home.backups, 0o700)
    path = home.backups / f"ledger-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{label}.sqlite"
    aside = path.with_suffix(".part")
    source = sqlite3.connect(home.ledger)
    target = sqlite3.connect(aside)
    try:
        aside.chmod(0o600)
        # In one step: in several, every write of somebody else would make it begin again.
        source.backup(target)
        wrong = quick_check(target)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    finally:
        target.close()
        source.close()
    if wrong:
        aside.unlink()
        raise damaged(home.ledger, wrong[0])
    fsync_file(aside)
    os.replace(aside, path)
    fsync_folder(path.parent)
    return path


def quick_check(connection: sqlite3.Connection) -> list[str]:
    """What SQLite finds wrong with a file's pages; empty when nothing is."""
    try:
        found = [str(row[0]) for row in connection.execute("PRAGMA quick_check")]
    except sqlite3.DatabaseError as error:
        return [str(error)]
    return [text for text in found if text != "ok"]


def _recognise(path: Path) -> None:
    """Refuse what is no SQLite file before SQLite can touch it: it would turn an empty one into a
    database."""
    try:
        with path.open("rb") as stream:
            start = stream.read(16)
    except OSError as error:
        raise LedgerError(f"{path} cannot be read ({error.strerror})") from error
    if start != b"SQLite format 3\0":
        raise damaged(path, "it is no SQLite file")


def _connect(path: Path) -> SqliteDatabase:
    durably = {
        "journal_mode": "wal",
        "synchronous": "full",
        "foreign_keys": 1,
        "busy_timeout": BUSY_TIMEOUT_S * 1000,
    }
    # IMMEDIATE: a transaction that reads and then writes would otherwise fail at once under
    # contention, whatever the timeout.
    db = SqliteDatabase(
        f"{path.absolute().as_uri()}{'?immutable=1' if _at_rest(path) else ''}",
        uri=True,
        pragmas={} if _at_rest(path) else durably,
        timeout=BUSY_TIMEOUT_S,
        lock_type="IMMEDIATE",
    )
    try:
        db.connect()
    except PassingTrouble as error:
        raise _refused(path, error) from error
    except peewee.DatabaseError as error:
        raise damaged(path, error) from error
    return db


def _at_rest(path: Path) -> bool:
    """Whether nobody can write to a ledger, which then needs none of the files for that to be read.

    One with a WAL is not whole without it.
    """
    read_only = os.statvfs(path.parent).f_flag & os.ST_RDONLY
    return bool(read_only) and not path.with_name(f"{path.name}-wal").exists()


def _check(ledger: Ledger, home: Home) -> None:
    pragma = ledger.db.pragma
    durable = (pragma("journal_mode"), pragma("synchronous"), pragma("foreign_keys"))
    if durable != ("wal", 2, 1) and not _at_rest(home.ledger):
        raise LedgerError(
            f"{home.ledger} cannot be opened durably (WAL, synchronous=FULL); "
            "is the home on a local disk that you may write to?"
        )
    version = _version(ledger.db, home.ledger)
    if version > SCHEMA_VERSION:
        raise LedgerError(
            f"{home.ledger} was written by a newer ftd (schema {version}, this one knows "
            f"{SCHEMA_VERSION}). Upgrade ftd"
        )
    if version < SCHEMA_VERSION:
        raise LedgerError(
            f"{home.ledger} has schema {version}, this ftd needs {SCHEMA_VERSION}. "
            "(Re)start the daemon: it makes a backup and upgrades"
        )


def _version(db: SqliteDatabase, path: Path) -> int:
    try:
        version = int(db.pragma("user_version"))
    except PassingTrouble as error:
        raise _refused(path, error) from error
    except peewee.DatabaseError as error:
        raise damaged(path, error) from error
    if version < 1:
        raise damaged(path, "it is no ledger of ftd's")
    return version


def _refused(path: Path, error: Exception) -> LedgerError:
    """The error that says why a ledger, though undamaged, cannot be used now."""
    return LedgerError(
        f"{path} cannot be used for now ({error}). Is there room on its disk, and may you write "
        "there? Then try again"
    )


def damaged(path: Path, error: Exception | str) -> LedgerError:
    """The error that says how a damaged ledger at `path` is restored."""
    copies = sorted((path.parent / "backups").glob("ledger-*.sqlite"))
    if copies:
        # The -wal file has to go along: SQLite would replay it into the copy.
        fix = (
            f"Stop the daemon, then: cd {shlex.quote(str(path.parent))} && mkdir damaged && "
            f"mv {path.name}* damaged && cp backups/{copies[-1].name} {path.name}"
        )
    else:
        fix = (
            "There is no backup. Keep the file: 'sqlite3 ... .recover' may save what is in it; "
            "or choose another home with --home"
        )
    return LedgerError(f"{path} cannot be read ({error}). Nothing was changed. {fix}")


def _create(home: Home) -> None:
    try:
        make_folder(home.root, 0o700)
    except OSError as error:
        raise LedgerError(
            f"cannot make a home at {home.root} ({error.strerror}). Choose another with --home"
        ) from error
    if not os.access(home.root, os.W_OK | os.X_OK):
        raise LedgerError(f"you may not write to {home.root}. Choose another home with --home")
    _refuse_network_filesystem(home.root)
    with locked(home.ledger_lock):
        if home.ledger.exists():
            return
        aside = home.root / ".ledger.new"
        _drop(aside)  # somebody was killed at it
        try:
            db = _connect(aside)
            try:
                _migrate(db)
            finally:
                db.close()  # the last connection folds the WAL into the file
            os.chmod(aside, 0o600)
            fsync_file(aside)
        except PassingTrouble as error:
            _drop(aside)
            raise _refused(home.ledger, error) from error
        except BaseException:
            _drop(aside)
            raise
        faults.point("create.migrated")
        os.rename(aside, home.ledger)
        faults.point("create.renamed")
        fsync_folder(home.root)


def _drop(unfinished: Path) -> None:
    """Remove a ledger that nobody has used yet, with what SQLite put beside it."""
    for path in unfinished.parent.glob(f"{unfinished.name}*"):
        with suppress(OSError):
            path.unlink()


def _migrate(db: SqliteDatabase) -> list[str]:
    from playhouse.migrations import Runner

    names: list[str] = Runner(db, str(MIGRATIONS)).up()
    db.pragma("user_version", SCHEMA_VERSION)
    return names


def _refuse_network_filesystem(folder: Path) -> None:
    """SQLite's locks are not safe there; better to say so than to lose runs."""
    mounts = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mount, kind, *_ = line.split()
        mounts.append((mount.encode().decode("unicode_escape"), kind))
    real = str(folder.resolve())
    inside = [
        (mount, kind)
        for mount, kind in mounts
        if real == mount or real.startswith(mount.rstrip("/") + "/")
    ]
    mount, kind = max(inside, key=lambda found: len(found[0]), default=("/", ""))
    if kind in NETWORK_FILESYSTEMS:
        raise LedgerError(
            f"{folder} is on a network filesystem ({kind}, mounted at {mount}), where SQLite's "
            "locks are not safe. Put the home on a local disk (--home or $FTD_HOME)"
        )
