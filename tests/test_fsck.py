"""fsck: each defect is planted exactly, found by its check alone, and mended where that is safe."""

from __future__ import annotations

import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from ftd.cli.main import main
from ftd.clock import now
from ftd.daemon.queue import Queue
from ftd.files import MANIFEST, seal_folder, seal_json, sealed_folder, try_lock
from ftd.fsck.examine import CHECKS, examine
from ftd.layout import Home
from ftd.ledger import details, execution, invariants, inventory, reads
from ftd.ledger.db import Ledger, open_ledger
from ftd.ledger.models import Attempt, Experiment, Lease, Run
from ftd.ledger.wishes import admit
from ftd.process import Identity, identity_of, own_identity
from ftd.protocol import ARTIFACTS, CHECKPOINTS, ORDER, WORKER
from ftd.store import Store
from tests.finished import begin
from tests.homes import LiveHome, serving
from tests.ledgers import enqueue, plan

SPEC = "experiment: sound\njob: drill\nsteps: 3\nreplicates: 2\n"
DONE, WAITING = 1, 3  # runs r1 and r2 are done, r3 to r6 wait
LONG_AGO_S = 7200.0


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in order: two runs done by real workers, four that wait."""
    live = LiveHome(tmp_path_factory.mktemp("sound") / "home")
    live.enqueue(SPEC)
    assert live.finish() == 0
    ledger = open_ledger(live.home)
    enqueue(ledger, plan())
    ledger.close()
    return live.root


@pytest.fixture
def home(sound: Path, tmp_path: Path) -> Home:
    """A copy of it."""
    shutil.copytree(sound, tmp_path / "home", ignore=shutil.ignore_patterns("wake"))
    return LiveHome(tmp_path / "home").home


@pytest.fixture
def ledger(home: Home) -> Iterator[Ledger]:
    """Its ledger."""
    opened = open_ledger(home)
    yield opened
    opened.close()


def fsck(home: Home, *options: str) -> tuple[int, list[dict[str, object]]]:
    """What the command says: exit status and problems."""
    said = io.StringIO()
    with redirect_stdout(said):
        status = main(["--home", str(home.root), "fsck", "--json", *options])
    found = json.loads(said.getvalue())
    assert found["clean"] == (status == 0)
    return status, found["problems"]


def execute(ledger: Ledger, statement: str, *values: object) -> None:
    """Change rows behind ftd's back."""
    ledger.db.execute_sql(statement, values)


def state(ledger: Ledger, run_id: int) -> str:
    """Where a run stands."""
    return str(ledger.values(Run.select(Run.state).where(Run.id == run_id))[0])


def checkpoint(home: Home, run_id: int, step: int = 10) -> Path:
    """A good checkpoint of a run's first attempt."""
    folder = home.attempt(run_id, 1) / CHECKPOINTS / f"{step:09d}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    seal_folder(folder, {"state": lambda path: _write(path, "0123")}, {"key": "k", "step": step})
    return folder


def store_entry(home: Home) -> Path:
    """A good store entry."""
    files = {"data": lambda path: _write(path, "0123")}
    return Store(home.store).entry("arrays", {"size": 3}, lambda: files)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def old(path: Path) -> Path:
    """A file that nobody has touched for hours."""
    _write(path, "half a fi")
    os.utime(path, (now() - LONG_AGO_S, now() - LONG_AGO_S))
    return path


# --- defects: each is planted by a function that returns where it is and how the mended home looks

Healed = Callable[[], bool]
Plant = Callable[[Home, Ledger], tuple[str, Healed | None]]
PLANTS: dict[str, tuple[str, Plant]] = {}


def defect(check: str) -> Callable[[Plant], Plant]:
    """Register a defect for the check that must find it."""

    def register(plant: Plant) -> Plant:
        PLANTS[plant.__name__] = (check, plant)
        return plant

    return register


@defect("references")
def a_row_without_its_other(home: Home, ledger: Ledger) -> tuple[str, Healed | None]:
    """A dependency on a run that does not exist."""
    execute(ledger, "PRAGMA foreign_keys=0")
    execute(ledger, "INSERT INTO dependency VALUES (?, 999)", WAITING)
    execute(ledger, "PRAGMA foreign_keys=1")
    return "ledger.sqlite", None


@defect("executing")
def a_run_that_nobody_executes(home: Home, ledger: Ledger) -> tuple[str, Healed | None]:
    """It is held meanwhile: mended, it stands where it is wished."""
    execute(ledger, "UPDATE membership SET wish = 'hold' WHERE run_id = ?", WAITING)
    execute(ledger, "UPDATE run SET state = 'running', priority = 0 WHERE id = ?", WAITING)
    return f"r{WAITING}", lambda: state(ledger, WAITING) == "held"


@defect("attempts")
def a_live_attempt_of_a_waiting_run(home: Home, ledger: Ledger) -> tuple[str, Healed | None]:
    """The scheduler would start it a second time."""
    begin(ledger, WAITING)
    execute(ledger, "UPDATE run SET state = 'queued' WHERE id = ?", WAITING)
    return f"r{WAITING}, attempt 1", lambda: state(ledger, WAITING) == "running"


@defect("attempts")
def a_live_attempt_without_a_device(home: Home, ledger: Ledger) -> tuple[str, Healed | None]:
    """A daemon finds live attempts by their leases."""
    begin(ledger, WAITING)
    execute(ledger, "UPDATE lease SET released_at = 1.0 WHERE released_at IS NULL")
    return f"r{WAITING}, attempt 1", lambda: state(ledger, WAITING) == "queued"


@defect("attempts")
def a_live_attempt_of_a_run_that_ended(home: Home, ledger: Ledger) -> tuple[str, Healed | None]:
    """Its end would overwrite how the run ended; the lease goes with it."""
    begin(ledger, WAITING)
    execute(ledger, "UPDATE run SET state = 'cancelled' WHERE id = ?", WAITING)
    leases = Lease.select(Lease.id).where(Lease.released_at.is_null())
    return (
        f"r{WAITING}, attempt 1",
        lambda: state(ledger, WAITING) == "cancelled" and not ledger.values(leases),
    )


@defect("attempts")
def a_worker_that_still_runs(home: Home, ledger: Ledger) -> tuple[str, Healed | None]:
    """Nothing is ended as long as its process lives."""
    attempt = begin(ledger, WAITING)
    execution.record_spawn(ledger, attempt.worker_id, own_identity())
    execute(ledger, "UPDATE lease SET released_at = 1.0 WHERE released_at IS NULL")
    return f"r{WAITING}, attempt 1", None


@defect("leases")
def a_lease_of_an_ended_worker(home: Home, ledger: Ledger) -> tuple[str, Healed | None]:
    """Its device would be taken for ever."""
    execute(ledger, "UPDATE lease SET released_at = NULL WHERE id = 1")
    return "cpu:0", lambda: all(row.run_id is None for row in inventory.devices(ledger))


@defect("wishes")
def a_run_that_is_held_by_nobody(home: Home, ledger: Ledger) -> tuple[str, Healed | None]:
    """Its memberships want it to run."""
    execute(ledger, "UPDATE run SET state = 'held' WHERE id = ?", WAITING)
    return f"r{WAITING}", lambda: state(ledger, WAITING) == "queued"


@defect("wishes")
def a_priority_that_nobody_gave(home: Home, ledger: Ledger) -> tuple[str, Healed | None]:
    """It would jump the queue."""
    execute(ledger, "UPDATE run SET priority = 9 WHERE id = ?", WAITING)
    priority = Run.select(Run.priority).where(Run.id == WAITING)
    return f"r{WAITING}", lambda: ledger.values(priority) == [0]


@defect("results")
def a_done_run_without_a_digest(home: Home, ledger: Ledger) -> tuple[str, Healed | None]:
    """Nobody could tell what it computed."""
    execute(ledger, "UPDATE run SET state_sha256 = NULL WHERE id = ?", DONE)
    return f"r{DONE}", None


@defect("announcements")
def an_experiment_that_nobody_announced(home: Home, ledger: Ledger) -> tuple[str, Healed | None]:
    """Acknowledged, but the daemon would never hear of it."""
    execute(ledger, "UPDATE experiment SET admitted_at = NULL WHERE id = 2")

    def admitted() -> bool:
        live = LiveHome(home.root)
        assert live.finish() == 0
        return ledger.values(Experiment.select(Experiment.admitted_at))[1] is not None

    return "e2", admitted


@defect("places")
def a_run_without_a_place(home: Home, ledger: Ledger) -> tuple[str, Healed | None]:
    """No experiment has it."""
    execute(ledger, "DELETE FROM membership WHERE run_id = ?", DONE)
    return f"r{DONE}", None


@defect("artifacts")
def an_artifact_that_is_gone(home: Home, ledger: Ledger) -> tuple[str, Healed | None]:
    """Somebody made room."""
    path = home.attempt(DONE, 1) / ARTIFACTS / "state.json"
    path.unlink()
    return str(path.relative_to(home.root)), None


@defect("artifacts")
def an_artifact_with_one_other_byte(home: Home, ledger: Ledger) -> tuple[str, Healed | None]:
    """Its size is the same."""
    path = home.attempt(DONE, 1) / ARTIFACTS / "state.json"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    return str(path.relative_to(home.root)), None


@defect("checkpoints")
def a_damaged_checkpoint(home: Home, ledger: Ledger) -> tuple[str, Healed | None]:
    """It is set aside, the good one beside it stays."""
    good, bad = checkpoint(home, WAITING, 5), checkpoint(home, WAITING, 10)
    (bad / "state").write_text("0x23")
    return (
        str(bad.relative_to(home.root)),
        lambda: (
            sealed_folder(good) is not None
            and not bad.exists()
            and [(path / "state").read_text() for path in bad.parent.glob(".damaged-*")] == ["0x23"]
        ),
    )


@defect("checkpoints")
def a_checkpoint_of_a_done_run(home: Home, ledger: Ledger) -> tuple[str, Healed | None]:
    """The daemon was killed before it dropped it."""
    folder = checkpoint(home, DONE)
    for path in (*folder.iterdir(), folder):
        os.utime(path, (now() - LONG_AGO_S, now() - LONG_AGO_S))
    return str(folder.relative_to(home.root)), lambda: not folder.exists()


@defect("store")
def a_damaged_store_entry(home: Home, ledger: Ledger) -> tuple[str, Healed | None]:
    """Set aside, it is computed again by whoever needs it."""
    folder = store_entry(home)
    (folder / "data").write_text("0x23")

    def anew() -> bool:
        kept = [(path / "data").read_text() for path in folder.parent.glob(".damaged-*")]
        return kept == ["0x23"] and (store_entry(home) / "data").read_text() == "0123"

    return str(folder.relative_to(home.root)), anew


@defect("leftovers")
def an_unfinished_file(home: Home, ledger: Ledger) -> tuple[str, Healed | None]:
    """The daemon was killed while it sealed an order."""
    path = old(home.attempt(WAITING, 1) / f".{ORDER}.a1b2c3d4")
    return str(path.relative_to(home.root)), lambda: not path.exists()


@defect("leftovers")
def an_unfinished_folder(home: Home, ledger: Ledger) -> tuple[str, Healed | None]:
    """A worker was killed while it sealed a checkpoint."""
    folder = home.attempt(WAITING, 1) / CHECKPOINTS / ".000000010.a1b2c3d4"
    old(folder / "state")
    os.utime(folder, (now() - LONG_AGO_S, now() - LONG_AGO_S))
    return str(folder.relative_to(home.root)), lambda: not folder.exists()


@defect("leftovers")
def an_unfinished_backup(home: Home, ledger: Ledger) -> tuple[str, Healed | None]:
    """The daemon was killed while it copied the ledger."""
    path = old(home.backups / "ledger-20260101-000000-nightly.part")
    return str(path.relative_to(home.root)), lambda: not path.exists()


@defect("unknown runs")
def a_run_folder_that_nobody_knows(home: Home, ledger: Ledger) -> tuple[str, Healed | None]:
    """The ledger was restored from an older backup; what is in it is kept."""
    folder = home.run(77)
    _write(folder / "attempts/1/events.jsonl", "{}\n")

    def kept() -> bool:
        (aside,) = folder.parent.glob(".unknown-r77-*")
        return not folder.exists() and (aside / "attempts/1/events.jsonl").exists()

    return "runs/r77", kept


# --- what must hold of all of them


def test_a_home_in_order_is_clean(home: Home) -> None:
    """Nothing is found, and the exit status says so."""
    assert fsck(home) == (0, [])
    text = LiveHome(home.root).ftd("fsck").stdout
    assert text == f"{home.root}: {len(CHECKS)} checks, nothing is wrong\n"


def test_every_check_has_a_defect() -> None:
    """No check goes untested."""
    names = {check.__name__.replace("_", " ") for check in CHECKS}
    assert names == {check for check, _ in PLANTS.values()} | {"orphans"}


def contents(home: Home) -> object:
    """All that a home holds: rows and files."""
    connection = sqlite3.connect(home.ledger)
    rows = list(connection.iterdump())
    connection.close()
    files = {
        str(path.relative_to(home.root)): path.read_bytes() if path.is_file() else None
        for path in home.root.rglob("*")
        if not path.name.startswith("ledger.sqlite")
    }
    return rows, files


@pytest.mark.parametrize("name", PLANTS)
def test_a_defect_is_found_explained_and_mended(name: str, home: Home, ledger: Ledger) -> None:
    """Its check and no other finds it; nothing changes until --repair; then the home is clean."""
    check, plant = PLANTS[name]
    where, healed = plant(home, ledger)
    before = contents(home)
    status, problems = fsck(home)
    assert status == 1
    assert [(one["check"], one["where"]) for one in problems] == [(check, where)]
    (problem,) = problems
    assert problem["text"] and problem["fix"]
    assert problem["mendable"] == (healed is not None)
    assert contents(home) == before

    status, problems = fsck(home, "--repair")
    assert [one["mended"] for one in problems] == [healed is not None]
    if healed is None:
        assert status == 1
        assert contents(home) == before, "what cannot be mended safely is left as it is"
    else:
        assert status == 0
        assert fsck(home) == (0, [])
        assert healed()


def test_a_worker_that_nobody_follows_is_named_and_left_alone(home: Home, ledger: Ledger) -> None:
    """Its process is shown; killing it is for a person to decide."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        identity = identity_of(child.pid)
        assert identity is not None
        seal_json(home.attempt(DONE, 1) / WORKER, identity.as_json())
        for options in ([], ["--repair"]):
            status, problems = fsck(home, *options)
            assert status == 1
            assert [(one["check"], one["where"]) for one in problems] == [
                ("orphans", f"r{DONE}, attempt 1")
            ]
            assert f"kill {child.pid}" in str(problems[0]["fix"])
        assert child.poll() is None
    finally:
        child.communicate()
    assert fsck(home) == (0, [])


def test_a_stranger_with_a_workers_pid_is_no_orphan(home: Home) -> None:
    """A pid alone is nobody's."""
    own = own_identity()
    seal_json(home.attempt(DONE, 1) / WORKER, Identity("other", own.pid, 1).as_json())
    assert fsck(home) == (0, [])


def test_what_is_being_written_is_left_alone(home: Home) -> None:
    """Only what nobody has touched for an hour was left behind; what was set aside stays."""
    folder = home.attempt(WAITING, 1) / CHECKPOINTS / ".000000010.a1b2c3d4"
    old(folder / "state")
    _write(folder / "optimizer", "just now")
    _write(home.attempt(WAITING, 1) / f".{ORDER}.a1b2c3d4", "just now")
    old(home.store / "arrays" / ".damaged-0123-12345678")
    old(home.store / "arrays" / "0123.lock")
    assert fsck(home, "--repair") == (0, [])
    assert (folder / "state").exists()


def test_a_folder_in_use_is_not_moved(home: Home) -> None:
    """A worker that the ledger does not know keeps its run's folder until it ends."""
    home.run(77).mkdir()
    held = try_lock(home.run_lock(77))
    assert held is not None
    done = LiveHome(home.root).ftd("fsck", "--repair")
    os.close(held)
    assert done.returncode == 1
    assert "could not be mended: a worker still holds" in done.stdout
    assert home.run(77).exists()


def test_a_home_is_not_mended_beside_a_daemon(home: Home, ledger: Ledger) -> None:
    """--repair asks for the daemon to be stopped; looking is allowed."""
    live = LiveHome(home.root, slots=1)
    with serving(live):
        live.until(lambda: live.states() == ["done"] * 6, "all is done")
        done = live.ftd("fsck", "--repair")
        assert done.returncode == 1 and "a daemon already serves" in done.stderr
        assert fsck(home) == (0, [])


def test_a_busy_home_has_no_false_alarms(tmp_path: Path) -> None:
    """While runs begin, checkpoint and end, looking finds nothing wrong."""
    live = LiveHome(tmp_path / "home", slots=2, every_steps=1)
    live.enqueue("experiment: busy\njob: drill\nsteps: 25\nstep_s: 0.01\nreplicates: 6\n")
    ledger = open_ledger(live.home)
    with serving(live):
        live.until(lambda: _in_order_and_done(live, ledger), "all six are done")
    ledger.close()


def _in_order_and_done(live: LiveHome, ledger: Ledger) -> bool:
    assert list(examine(live.home, ledger)) == []
    return reads.counts(ledger)["done"] == 6


def test_an_experiment_that_is_just_being_pulled_is_no_problem(
    home: Home, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Admitted and announced are looked at in one moment, whatever a daemon does in between."""
    an_experiment_that_nobody_announced(home, ledger)
    Queue(ledger).put(2)
    asked = invariants.unadmitted

    def unadmitted(looking: Ledger) -> list[int]:
        found = asked(looking)
        other = open_ledger(home)
        assert Queue(other, admit=lambda experiment: admit(other, experiment)).pull()
        other.close()
        return found

    monkeypatch.setattr(invariants, "unadmitted", unadmitted)
    assert list(examine(home, ledger)) == []
    assert asked(ledger) == [], "it was pulled meanwhile"


def test_mending_is_part_of_the_history(home: Home, ledger: Ledger) -> None:
    """Who mended what can be read afterwards."""
    a_run_that_is_held_by_nobody(home, ledger)
    assert fsck(home, "--repair")[0] == 0
    last = details.run_details(ledger, WAITING)["history"][-1]
    assert (last["kind"], last["who"] != "daemon") == ("mended", True)


def test_several_defects_at_once(home: Home, ledger: Ledger) -> None:
    """Every one is mended, and what cannot be mended is left over."""
    a_run_that_nobody_executes(home, ledger)
    a_lease_of_an_ended_worker(home, ledger)
    an_artifact_that_is_gone(home, ledger)
    (store_entry(home) / MANIFEST).unlink()
    status, problems = fsck(home, "--repair")
    assert status == 1
    assert {one["check"]: one["mended"] for one in problems} == {
        "executing": True, "leases": True, "artifacts": False, "store": True,
    }  # fmt: skip
    assert ledger.values(Attempt.select(Attempt.id).where(Attempt.outcome.is_null())) == []
