"""Backups of the ledger: made in time, checked, kept; and what a restored one meets."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftd.clock import now
from ftd.errors import LedgerError
from ftd.layout import Home
from ftd.ledger import backups, db, reads
from ftd.ledger.db import backup, open_ledger
from tests.homes import LiveHome, outcome_of, serving
from tests.ledgers import enqueue, new_ledger, plan

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home whose ledger holds some runs."""
    ledger = new_ledger(tmp_path)
    enqueue(ledger, plan(levels=range(60)))
    ledger.close()
    return Home(tmp_path / "home")


def age(path: Path, seconds: float) -> None:
    """Let a file be this old."""
    os.utime(path, (now() - seconds, now() - seconds))


def damage(home: Home, share: float) -> bytes:
    """Overwrite the ledger's pages behind its first share of them; the bytes it then has."""
    content = bytearray(home.ledger.read_bytes())
    page = 4096
    begin = max(int(len(content) * share) // page, 1) * page
    content[begin : begin + 4 * page] = os.urandom(min(4 * page, len(content) - begin))
    home.ledger.write_bytes(content)
    return bytes(content)


HOURS = st.integers(-48, 72).map(lambda hours: hours + 0.5)


@given(ages_h=st.lists(HOURS, max_size=4), ledger_h=HOURS)
def test_a_backup_is_due_when_all_are_older_than_asked(
    tmp_path_factory: pytest.TempPathFactory, ages_h: list[float], ledger_h: float
) -> None:
    """Any backup of the last day is enough, so is a young ledger; times to come do not count."""
    home = Home(tmp_path_factory.mktemp("due"))
    home.backups.mkdir()
    home.ledger_lock.touch()
    age(home.ledger_lock, ledger_h * HOUR_S)
    for number, age_h in enumerate(ages_h):
        path = home.backups / f"ledger-{number}-nightly.sqlite"
        path.touch()
        age(path, age_h * HOUR_S)
    fresh = any(0 <= age_h < 24 for age_h in [*ages_h, ledger_h])
    assert backups.due(home, DAY_S, now()) == (not fresh)


def test_the_newest_nightly_backups_are_kept(home: Home) -> None:
    """Older nightly ones and unfinished ones go; those from before an upgrade stay."""
    home.backups.mkdir()
    for day in range(1, 5):
        (home.backups / f"ledger-2020010{day}-000000-nightly.sqlite").touch()
    upgrade = home.backups / "ledger-20200101-000000-before-schema-2.sqlite"
    unfinished = home.backups / "ledger-20200105-000000-nightly.part"
    for path in (upgrade, unfinished):
        path.touch()
    made = backups.nightly(home, kept=3)
    left = sorted(path.name for path in home.backups.iterdir())
    assert left == [
        upgrade.name,
        "ledger-20200103-000000-nightly.sqlite",
        "ledger-20200104-000000-nightly.sqlite",
        made.name,
    ]
    assert made.stat().st_mode & 0o077 == 0, "only its owner may read it"


def test_a_backup_beside_writers_is_one_moment_of_the_ledger(home: Home) -> None:
    """Whoever writes meanwhile goes on, and the copy never holds half a transaction."""
    stop = threading.Event()
    written = []

    def write() -> None:
        ledger = open_ledger(home)
        while not stop.is_set():
            number = len(written)
            enqueue(ledger, plan(f"study{number}", levels=range(20), salt=str(number)))
            written.append(number)
        ledger.close()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        copies = [backup(home, str(number)) for number in range(5)]
    finally:
        stop.set()
        writer.join()
    assert written
    for copy in copies:
        connection = sqlite3.connect(copy)
        (runs,) = connection.execute("SELECT count(*) FROM run").fetchone()
        (studies,) = connection.execute("SELECT count(*) FROM experiment").fetchone()
        connection.close()
        assert runs == 120 + 40 * (studies - 1)


def test_a_damaged_ledger_gives_no_backup_and_costs_no_old_one(home: Home) -> None:
    """A copy is checked before it counts: good ones are not driven out by bad ones."""
    good = [backup(home, f"{number}-nightly") for number in range(2)]
    damage(home, 0.5)
    with pytest.raises(LedgerError, match="damaged"):
        backups.nightly(home, kept=1)
    assert sorted(home.backups.iterdir()) == sorted(good)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6])
def test_a_damaged_ledger_is_refused_and_restored_as_it_is_said(home: Home, share: float) -> None:
    """The daemon starts nothing, nothing is changed, and the printed commands bring it back."""
    live = LiveHome(home.root, slots=1)
    copy = backup(home, "nightly")
    before = damage(home, share)
    done = live.ftd("daemon", "--until-idle")
    assert done.returncode == 1
    assert home.ledger.read_bytes() == before
    assert not (home.root / "runs").exists()
    said = re.fullmatch(r"ftd: .* Stop the daemon, then: (cd .*)\n", done.stderr)
    assert said is not None, done.stderr
    assert copy.name in said[1]
    subprocess.run(["sh", "-e", "-c", said[1]], check=True)
    assert live.json("status")["counts"]["queued"] == 120
    kept = (home.root / "damaged" / "ledger.sqlite").read_bytes()
    assert kept == before, "what may still be saved is kept"


@pytest.mark.parametrize("verb", [["status"], ["runs"], ["cancel", "r1"], ["fsck"]], ids=" ".join)
def test_a_damaged_ledger_is_one_line_for_every_command(home: Home, verb: list[str]) -> None:
    """No traceback, wherever SQLite stumbles."""
    damage(home, 0.0)
    live = LiveHome(home.root, slots=1)
    done = live.ftd(*verb)
    assert done.returncode == 1
    assert done.stderr.startswith("ftd: ") and done.stderr.count("\n") == 1, done.stderr


def test_without_a_backup_it_is_said_so(home: Home) -> None:
    """Nobody is sent to look for a file that does not exist."""
    damage(home, 0.0)
    assert "There is no backup" in LiveHome(home.root).ftd("daemon", "--until-idle").stderr


def test_the_daemon_makes_a_backup_when_one_is_due(tmp_path: Path) -> None:
    """A ledger older than a day without a backup gets one while runs go on."""
    live = LiveHome(tmp_path / "home", slots=1)
    live.enqueue("experiment: one\njob: drill\nsteps: 20\nstep_s: 0.02\n")
    age(live.home.ledger_lock, 2 * DAY_S)
    with serving(live):
        live.until(lambda: "backed up the ledger" in live.log(), "there is a backup")
    (copy,) = live.home.backups.iterdir()
    connection = sqlite3.connect(copy)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert connection.execute("SELECT count(*) FROM run").fetchone() == (1,)
    connection.close()


A_MIGRATION = """
def up(migrator, db):
    db.execute_sql("CREATE TABLE another (id INTEGER)")
    {then}
"""


THIS, NEXT = db.SCHEMA_VERSION, db.SCHEMA_VERSION + 1


def a_next_schema(folder: Path, monkeypatch: pytest.MonkeyPatch, then: str) -> None:
    """Let this ftd know one schema more than the ledger has."""
    shutil.copytree(db.MIGRATIONS, folder)
    (folder / f"{NEXT:04}_another.py").write_text(A_MIGRATION.format(then=then))
    monkeypatch.setattr(db, "MIGRATIONS", folder)
    monkeypatch.setattr(db, "SCHEMA_VERSION", NEXT)


def tables(path: Path) -> set[str]:
    """The tables of a ledger or of a copy of it."""
    connection = sqlite3.connect(path)
    found = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    connection.close()
    return found


def test_an_upgrade_is_preceded_by_a_backup(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy has the older schema, the ledger the newer one; doing it again does nothing."""
    a_next_schema(tmp_path / "migrations", monkeypatch, "pass")
    with pytest.raises(LedgerError, match=f"has schema {THIS}, this ftd needs {NEXT}"):
        open_ledger(home)
    assert db.upgrade(home) == [f"{NEXT:04}_another"]
    (copy,) = home.backups.glob(f"*-before-schema-{NEXT}.sqlite")
    assert tables(home.ledger) - tables(copy) == {"another"}
    ledger = open_ledger(home)
    assert reads.counts(ledger)["queued"] == 120
    ledger.close()
    assert db.upgrade(home) == []
    assert list(home.backups.iterdir()) == [copy]


def test_an_upgrade_that_fails_changes_nothing(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger is as before, and the ftd of before can go on with it."""
    before = tables(home.ledger)
    a_next_schema(tmp_path / "migrations", monkeypatch, "raise RuntimeError('no')")
    with pytest.raises(RuntimeError):
        db.upgrade(home)
    assert tables(home.ledger) == before
    monkeypatch.undo()
    open_ledger(home).close()


RUN = """
experiment: {name}
job: drill
steps: 40
step_s: 0.02
width: {width}
seed: 4
"""


def test_a_ledger_restored_from_a_backup_goes_on(tmp_path: Path) -> None:
    """Folders of attempts and runs that it does not know confuse nobody; every result is right."""
    twin = LiveHome(tmp_path / "twin")
    live = LiveHome(tmp_path / "home", slots=1)
    for home in (twin, live):
        home.enqueue(RUN.format(name="first", width=16))
    live.start_daemon()
    live.until_step(6, "r1")
    copy = backup(live.home, "nightly")
    live.kill_workers()  # so that there is an attempt that the backup has never heard of
    live.until((live.home.attempt(1, 2) / "checkpoints").exists, "attempt 2 saves its state")
    live.kill_daemon()
    live.kill_workers()
    live.enqueue(RUN.format(name="lost", width=8))
    assert live.ftd("prioritise", "lost", "9").returncode == 0
    live.start_daemon()
    live.until_step(11, "r2")  # a run that the backup has never heard of
    live.kill_daemon()
    live.kill_workers()

    for path in live.root.glob("ledger.sqlite*"):
        path.unlink()
    shutil.copy(copy, live.home.ledger)
    for home in (twin, live):
        home.enqueue(RUN.format(name="other", width=4))  # gets the number of the lost one
        assert home.finish() == 0, home.log()
    assert outcome_of(live) == outcome_of(twin)
    assert [len(live.json("show", run)["attempts"]) for run in ("r1", "r2")] == [2, 1]
    numbers = [live.json("show", run)["attempts"][-1]["number"] for run in ("r1", "r2")]
    assert numbers == [3, 2], "above whatever is there"
    assert live.json("show", "r1")["attempts"][-1]["resumed_from_step"] > 0
    aside = [path.name for path in live.root.glob("runs/*/attempts/.unknown-*")]
    assert sorted(name.split("-")[1] for name in aside) == ["1", "2"], "kept, for a person to see"
    ledger = open_ledger(live.home)
    assert reads.counts(ledger)["done"] == 2
    ledger.close()


def test_copies_from_the_future_push_out_no_copy_of_now(home: Home) -> None:
    """After a clock that was ahead for days, new copies are kept, and one a day is enough."""
    age(home.ledger_lock, 2 * DAY_S)
    home.backups.mkdir()
    for day in range(30, 33):
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now() + day * DAY_S))
        copy = home.backups / f"ledger-{stamp}-nightly.sqlite"
        copy.touch()
        age(copy, -day * DAY_S)
    assert backups.due(home, DAY_S, now())
    made = backups.nightly(home, kept=3)
    assert made.exists()
    assert len(list(home.backups.iterdir())) == 3
    assert not backups.due(home, DAY_S, now())


def test_a_worker_that_a_restored_ledger_does_not_know_is_left_alone(tmp_path: Path) -> None:
    """It holds the run's lock, so that nothing of its is moved and nobody else takes the run."""
    live = LiveHome(tmp_path / "home", slots=2)
    live.enqueue(RUN.format(name="first", width=16).replace("steps: 40", "steps: 4000"))
    copy = backup(live.home, "nightly")
    live.start_daemon()
    live.until_step(6, "r1")
    live.kill_daemon()
    for path in live.root.glob("ledger.sqlite*"):
        path.unlink()
    shutil.copy(copy, live.home.ledger)
    with serving(live):
        live.until(lambda: "does not know holds the run" in live.log(), "it is noticed")
        assert len(live.workers()) == 1
        assert (live.home.attempt(1, 1) / "events.jsonl").exists()
        assert live.json("show", "r1")["attempts"][0]["outcome"] == "lost"
        assert live.states() == ["queued"]
