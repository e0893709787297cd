"""What runs cost: the device time they took, and what it would have been without sharing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from ftd import store as store_module
from ftd.cli.main import main
from ftd.files import read_json
from ftd.layout import Home
from ftd.ledger.costs import costs
from ftd.ledger.db import Ledger
from ftd.ledger.execution import Ending, LiveAttempt, end_attempt
from ftd.ledger.ingest import ingest
from ftd.ledger.models import Attempt
from ftd.protocol import EVENTS, SHARED_ACTUAL, SHARED_ALONE, Result
from ftd.states import Outcome, RunState
from ftd.store import COST, Store
from ftd.worker.context import AttemptContext
from tests.finished import begin
from tests.ledgers import enqueue, new_ledger, plan
from tests.orders import order

Uses = list[tuple[float, float]]


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's clock: each look is a second later than the one before."""
    ticking = count()
    monkeypatch.setattr(store_module, "monotonic", lambda: float(next(ticking)))


def use(root: Path, uses: Uses | None = None) -> Path:
    """One entry of the store, computed if it is not there."""
    used = None if uses is None else lambda actual_s, alone_s: uses.append((actual_s, alone_s))
    write = {"x": lambda path: path.write_text("x")}
    return Store(root, used).entry("letters", {"which": "x"}, lambda: write)


def test_the_store_tells_what_an_entry_would_have_cost(ticks: None, tmp_path: Path) -> None:
    """Who finds an entry is told how long it took to compute, whoever did."""
    uses: Uses = []
    folder = use(tmp_path)  # looks: at the start, at computing, behind it
    assert read_json(folder / COST) == {"seconds": 1.0}
    assert use(tmp_path, uses) == folder
    assert uses == [(1.0, 1.0)]
    use(tmp_path / "other", uses)
    assert uses[1:] == [(3.0, 1.0)], "who computes it waits for itself"


def test_what_is_used_again_costs_once(ticks: None, tmp_path: Path) -> None:
    """A run that asks for an entry several times would have computed it once, too."""
    use(tmp_path)
    uses: Uses = []
    store = Store(tmp_path, lambda actual_s, alone_s: uses.append((actual_s, alone_s)))
    for _ in range(3):
        store.entry("letters", {"which": "x"}, dict)
    whole = sum(alone_s - actual_s for actual_s, alone_s in uses)
    (folder,) = (path for path in tmp_path.glob("letters/*") if path.is_dir())
    assert whole == read_json(folder / COST)["seconds"] - uses[0][0]


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    """Two runs in the home that commands use."""
    monkeypatch.setenv("FTD_HOME", str(tmp_path / "home"))
    opened = new_ledger(tmp_path)
    enqueue(opened, plan(levels=(1, 2), replicates=1))
    yield opened
    opened.close()


def attempt(
    ledger: Ledger, root: Path, run: int, took_s: float, timings: dict[str, list[float]]
) -> LiveAttempt:
    """An attempt that took `took_s` and recorded these timings, over; the run is queued again."""
    live = begin(ledger, run)
    lines = [
        json.dumps({"t": 1.0, "kind": "timing", "name": name, "value": value, "step": 0})
        for name, values in timings.items()
        for value in values
    ]
    root.mkdir(parents=True)
    (root / EVENTS).write_text("".join(f"{line}\n" for line in lines))
    ingest(ledger, live.id, root / EVENTS)
    end_attempt(ledger, live, Ending(Outcome.LOST, RunState.QUEUED, None))
    ledger.write(
        Attempt.update(started_at=100.0, ended_at=100.0 + took_s).where(Attempt.id == live.id)
    )
    return live


def test_sharing_makes_no_run_look_cheap(ledger: Ledger, tmp_path: Path) -> None:
    """Whoever decoded the images that both use, alone both would have cost the same."""
    attempt(ledger, tmp_path / "1", 1, 60.0, {SHARED_ACTUAL: [20.0], SHARED_ALONE: [20.0]})
    attempt(ledger, tmp_path / "2", 2, 40.5, {SHARED_ACTUAL: [0.5], SHARED_ALONE: [20.0]})
    found = costs(ledger, [1, 2])
    assert [found[run].actual_s for run in (1, 2)] == [60.0, 40.5]
    assert [found[run].alone_s for run in (1, 2)] == [60.0, 60.0]


def test_what_is_shared_is_computed_once_per_run(ledger: Ledger, tmp_path: Path) -> None:
    """Of the sums of an attempt the largest counts; attempts of one run share with each other."""
    first = {SHARED_ACTUAL: [5.0, 12.0], SHARED_ALONE: [5.0, 12.0]}
    attempt(ledger, tmp_path / "1", 1, 30.0, first)
    attempt(ledger, tmp_path / "2", 1, 20.0, {SHARED_ACTUAL: [9.0], SHARED_ALONE: [20.0]})
    found = costs(ledger, [1, 2])
    assert found[1].attempts == 2 and found[1].actual_s == 50.0
    assert found[1].alone_s == 50.0 - 12.0 - 9.0 + 20.0
    assert 2 not in found


def test_an_attempt_reports_what_it_shared(tmp_path: Path) -> None:
    """The sums over all uses are in its events, whatever job it is; an entry is computed once."""
    folder = tmp_path / "run/attempts/1"
    folder.mkdir(parents=True)
    shared = tmp_path / "store"
    use(shared)
    context = AttemptContext(folder, order(store=str(shared)))
    seconds = json.loads((use(shared) / COST).read_text())["seconds"]
    for _ in range(3):
        context.store.entry("letters", {"which": "x"}, dict)
    context.end()
    events = [json.loads(line) for line in (folder / EVENTS).read_text().splitlines()]
    told = {event["name"]: event["value"] for event in events if event["kind"] == "timing"}
    assert told[SHARED_ALONE] >= seconds
    assert told[SHARED_ALONE] - told[SHARED_ACTUAL] < seconds
    assert told[SHARED_ACTUAL] >= 0


def finish(ledger: Ledger, run: int) -> None:
    live = begin(ledger, run)
    result = Result(Outcome.COMPLETED, metrics={"test/score": 0.5}, state_sha256="0" * 64)
    end_attempt(ledger, live, Ending(Outcome.COMPLETED, RunState.DONE, result))
    ledger.write(Attempt.update(started_at=0.0, ended_at=0.0).where(Attempt.id == live.id))


def shown(capsys: pytest.CaptureFixture[str], *command: str) -> Any:
    capsys.readouterr()
    assert main([*command, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_costs_and_timings_are_shown(
    ledger: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By ftd show, runs, summary and export; rates, memory and durations in their units."""
    timings = {
        SHARED_ACTUAL: [0.5], SHARED_ALONE: [20.0], "train/images_per_s": [1000.0, 1500.0],
        "peak_memory_bytes": [2.0 * 2**30, 3.0 * 2**30],
    }  # fmt: skip
    attempt(ledger, tmp_path / "1", 1, 40.5, timings)
    finish(ledger, 1)
    about = shown(capsys, "show", "r1")
    assert (about["cost_actual_s"], about["cost_alone_s"]) == (40.5, 60.0)
    rows = [row["value"] for row in about["timing_rows"] if row["name"] == "train/images_per_s"]
    assert rows == [1000.0, 1500.0]
    assert shown(capsys, "runs")[0]["cost_alone_s"] == 60.0
    (cell, other) = shown(capsys, "summary", "study")["cells"]
    assert (cell["cost_actual_s"], cell["cost_alone_s"]) == (40.5, 60.0)
    assert other["cost_alone_s"] is None and other["timings"] == {}
    assert cell["timings"] == {"train/images_per_s": 1250.0, "peak_memory_bytes": 3.0 * 2**30}
    assert shown(capsys, "export", "study")[0]["cost_alone_s"] == 60.0
    assert main(["show", "r1"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "cost 40 s" in text and "cost alone 1 min 00 s" in text
    assert "train/images_per_s 2 1,250.0 1,000.0 1,500.0" in text
    assert "peak_memory_bytes 2 2.5 GiB 2.0 GiB 3.0 GiB" in text


def test_old_entries_are_found(tmp_path: Path) -> None:
    """An entry that does not tell its cost is used as it is, and counts as what it took."""
    home = Home(tmp_path)
    folder = use(home.store)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"][COST]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / COST).unlink()
    uses: Uses = []
    assert use(home.store, uses) == folder
    assert [actual_s == alone_s for actual_s, alone_s in uses] == [True]
