"""After a reboot, or a SIGTERM from anywhere, runs go on by themselves, and it is said what was
redone."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from pathlib import Path

import pytest

from ftd.clock import now
from ftd.files import read_json, seal_json
from ftd.ledger import details
from ftd.ledger.db import Ledger
from ftd.ledger.execution import Ending, LiveAttempt, end_attempt, record_spawn
from ftd.ledger.ingest import ingest
from ftd.ledger.resumed import Resumed, resumed_after_reboot
from ftd.process import Identity
from ftd.protocol import WORKER
from ftd.states import Outcome, RunState
from tests.finished import begin
from tests.homes import LiveHome, outcome_of, serving
from tests.ledgers import enqueue, new_ledger, plan

SPEC = """
experiment: rebooted
job: drill
steps: 150
step_s: 0.02
replicates: 2
seed: 4
"""


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> object:
    """What the spec gives when nothing interrupts it."""
    home = LiveHome(tmp_path_factory.mktemp("twin") / "home")
    home.enqueue(SPEC)
    assert home.finish() == 0
    return outcome_of(home)


def test_a_worker_given_sigterm_saves_and_its_run_goes_on(tmp_path: Path, twin: object) -> None:
    """As at a shutdown: no step is lost, the run is queued again and equals its twin."""
    home = LiveHome(tmp_path / "home", every_steps=1000)
    home.enqueue(SPEC)
    with serving(home):
        home.until_step(7, "r1")
        said = read_json(home.home.attempt(1, 1) / WORKER)
        assert said is not None
        os.kill(said["pid"], signal.SIGTERM)
        home.until_states("done", "done")
    first, second = home.json("show", "r1")["attempts"]
    assert (first["outcome"], second["outcome"]) == ("stopped", "completed")
    assert second["resumed_from_step"] == first["checkpoint_step"] == first["step"] >= 7
    assert second["steps_redone"] == 0
    assert home.json("show", "r2")["attempts"][0]["outcome"] == "completed"
    assert outcome_of(home) == twin


def test_after_a_reboot_it_is_said_what_was_resumed(tmp_path: Path, twin: object) -> None:
    """Everything died at once; the next daemon goes on, status and show count what was redone."""
    home = LiveHome(tmp_path / "home", every_steps=10)
    home.enqueue(SPEC)
    home.start_daemon()
    for run in ("r1", "r2"):
        home.until_step(23, run)
    home.kill_daemon()
    assert home.kill_workers() == 2
    of_another_boot(home)
    assert home.json("status")["resumed"] == {"runs": [], "steps_redone": 0}, "not yet"
    assert home.finish() == 0

    attempts = [home.json("show", run)["attempts"] for run in ("r1", "r2")]
    assert all(len(some) == 2 and some[1]["resumed_from_step"] >= 20 for some in attempts)
    redone = sum(some[1]["steps_redone"] for some in attempts)
    assert home.json("status")["resumed"] == {"runs": ["r1", "r2"], "steps_redone": redone}
    text = home.ftd("status").stdout
    assert f"resumed after the reboot: r1-r2, {redone} step" in text
    assert "redone" in home.ftd("show", "r1").stdout
    assert outcome_of(home) == twin


def of_another_boot(home: LiveHome) -> None:
    """Let all workers so far have lived before the machine was started."""
    before = "before the reboot"
    connection = sqlite3.connect(home.home.ledger)
    connection.execute("UPDATE worker SET boot_id = ?", (before,))
    connection.commit()
    connection.close()
    for path in home.root.glob(f"runs/*/attempts/*/{WORKER}"):
        seal_json(path, {**(read_json(path) or {}), "boot_id": before})


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """A ledger with four queued runs."""
    opened = new_ledger(tmp_path)
    enqueue(opened, plan())
    return opened


def attempt(
    ledger: Ledger,
    folder: Path,
    run_id: int,
    boot: str | None,
    *,
    resumed: int | None = None,
    step: int | None = None,
) -> LiveAttempt:
    """An attempt in a boot that resumed at a step, came to another, and was lost."""
    found = begin(ledger, run_id)
    if boot is not None:
        record_spawn(ledger, found.worker_id, Identity(boot, 10, 10))
    lines = []
    if resumed is not None:
        lines.append({"kind": "resumed", "step": resumed})
    if step is not None:
        lines.append({"kind": "progress", "step": step, "num_steps": 99})
    stream = folder / f"{found.id}.jsonl"
    stream.write_text("".join(json.dumps({"t": 1.0, **line}) + "\n" for line in lines))
    ingest(ledger, found.id, stream)
    end_attempt(ledger, found, Ending(Outcome.LOST, RunState.QUEUED, None))
    return found


def test_only_what_this_boot_took_up_counts(ledger: Ledger, tmp_path: Path) -> None:
    """Not runs that died twice in one boot, not fresh ones, and not what began nothing yet."""
    attempt(ledger, tmp_path, 1, "old", step=17)  # 7 steps lost in the reboot
    attempt(ledger, tmp_path, 1, "new", resumed=10, step=30)
    attempt(ledger, tmp_path, 1, "new", resumed=20, step=40)  # 10 lost to a kill: not the reboot's
    attempt(ledger, tmp_path, 2, "old", step=5)
    attempt(ledger, tmp_path, 2, None)  # called off before there was a process
    attempt(ledger, tmp_path, 2, "new", resumed=0, step=3)  # nothing was saved: all 5 lost
    attempt(ledger, tmp_path, 3, "new", step=9)  # began after the reboot
    attempt(ledger, tmp_path, 4, "old", step=9)
    attempt(ledger, tmp_path, 4, "new")  # has not said yet where it begins
    assert resumed_after_reboot(ledger, "new", now() - 60) == Resumed((1, 2), 12)
    assert resumed_after_reboot(ledger, "old", now() - 60) == Resumed((), 0)
    shown = [row["steps_redone"] for row in details.run_details(ledger, 1)["attempts"]]
    assert shown == [None, 7, 10]


def test_a_reboot_is_news_for_a_while_only(ledger: Ledger, tmp_path: Path) -> None:
    """What was resumed long ago is not shown for ever."""
    attempt(ledger, tmp_path, 1, "old", step=17)
    attempt(ledger, tmp_path, 1, "new", resumed=10)
    assert resumed_after_reboot(ledger, "new", now() - 60).runs == (1,)
    assert resumed_after_reboot(ledger, "new", now() + 60) == Resumed((), 0)
