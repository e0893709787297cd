"""Killed exactly at each named point, once, the system finishes as if nothing had happened."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ftd import faults
from tests.homes import LiveHome, outcome_of

SPEC = """
experiment: points
job: drill
steps: 14
step_s: 0.01
replicates: 2
seed: 2
"""


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> object:
    """What the spec gives when nothing goes wrong."""
    home = LiveHome(tmp_path_factory.mktemp("twin") / "home", every_steps=3)
    home.enqueue(SPEC)
    assert home.finish() == 0
    return outcome_of(home)


def _armed(monkeypatch: pytest.MonkeyPatch, mark: Path, point: str) -> None:
    monkeypatch.setenv("FTD_FAULT", point)
    monkeypatch.setenv("FTD_FAULT_MARK", str(mark))


def _finish(home: LiveHome) -> None:
    """Serve to the end, starting the daemon again when it was the one to die."""
    while home.finish() == -9:
        pass


def _check(home: LiveHome, mark: Path, twin: object) -> None:
    """The point was reached, and nothing shows of it."""
    assert mark.exists(), "the point was never reached"
    assert outcome_of(home) == twin
    for run in home.runs():
        outcomes = [attempt["outcome"] for attempt in home.json("show", run["id"])["attempts"]]
        assert outcomes.count("completed") == 1
        assert outcomes[-1] == "completed"
    assert not home.workers()
    assert [device["state"] for device in home.json("status")["devices"]] == ["free", "free"]


@pytest.mark.parametrize(
    "point",
    [
        *(point for point in faults.DAEMON if not point.startswith("stop.")),
        *(f"{point}@2" for point in ("ingest.before_commit", "end.before_commit")),
        *faults.WORKER,
        *("folder.manifest@3", "event.torn@9"),
    ],
)
def test_a_death_while_serving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, twin: object, point: str
) -> None:
    """Daemon or worker dies at the point; the runs end once, equal to their twins."""
    home = LiveHome(tmp_path / "home", every_steps=3)
    home.enqueue(SPEC)
    _armed(monkeypatch, tmp_path / "mark", point)
    _finish(home)
    _check(home, tmp_path / "mark", twin)


@pytest.mark.parametrize("point", faults.RESTORE)
def test_a_death_while_resuming(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, twin: object, point: str
) -> None:
    """Killed in training, then again while it resumes, a run reads the same checkpoint again."""
    home = LiveHome(tmp_path / "home", every_steps=3)
    home.enqueue(SPEC + "fail_at_step: 8\nfail_with: crash\nfail_once: true\n")
    _armed(monkeypatch, tmp_path / "mark", point)
    _finish(home)
    _check(home, tmp_path / "mark", twin)
    attempts = [home.json("show", run["id"])["attempts"] for run in home.runs()]
    assert sorted(len(found) for found in attempts) == [2, 3]  # one of the two died twice
    (twice,) = [found for found in attempts if len(found) == 3]
    assert [attempt["outcome"] for attempt in twice] == ["killed", "killed", "completed"]
    resumed = [attempt["resumed_from_step"] for attempt in twice]
    assert resumed == [None, 6 if point == "restore.told" else None, 6]


@pytest.mark.parametrize("point", faults.FORKING)
def test_a_death_while_forking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, twin: object, point: str
) -> None:
    """The parent of workers dies before or after it forked one: one worker begins, and only one."""
    home = LiveHome(tmp_path / "home", every_steps=3, slots=1)
    with (home.root / "ftd.toml").open("a") as config:
        config.write("[jobs]\nshare_workers = false\n")
    home.enqueue(SPEC.replace("points", "before").replace("seed: 2", "seed: 3"))
    home.enqueue(SPEC)
    _armed(monkeypatch, tmp_path / "mark", point)
    _finish(home)
    assert (tmp_path / "mark").exists()
    found = outcome_of(home)
    assert [found["r3"], found["r4"]] == list(dict(twin).values())  # type: ignore[call-overload]
    assert [run["state"] for run in home.runs()] == ["done"] * 4
    assert not home.workers()


@pytest.mark.parametrize("point", faults.ADOPTION)
def test_a_death_while_adopting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, twin: object, point: str
) -> None:
    """A daemon that dies while it adopts workers leaves them to the next one."""
    home = LiveHome(tmp_path / "home", every_steps=3)
    home.enqueue(SPEC.replace("0.01", "0.1"))
    home.start_daemon()
    home.until(lambda: len(home.workers()) == 2, "both workers run")
    home.kill_daemon()
    _armed(monkeypatch, tmp_path / "mark", point)
    _finish(home)
    assert (tmp_path / "mark").exists()
    assert {run["state"] for run in home.runs()} == {"done"}
    assert {run["attempts"] for run in home.runs()} == {1}


@pytest.mark.parametrize("point", ["stop.requested", "stop.recorded"])
def test_a_death_while_stopping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """A daemon that dies between asking a worker to leave and remembering it: the wish holds."""
    home = LiveHome(tmp_path / "home", every_steps=3)
    home.enqueue(SPEC.replace("14", "5000"))
    _armed(monkeypatch, tmp_path / "mark", point)
    daemon = home.start_daemon()
    home.until(lambda: len(home.workers()) == 2, "both workers run")
    assert home.ftd("cancel", "points").returncode == 0
    assert daemon.wait() == -9
    assert home.finish() == 0
    assert home.states() == ["cancelled", "cancelled"]
    assert not home.workers()


@pytest.mark.parametrize("point", [*faults.ENQUEUE, *faults.CREATION])
def test_a_death_while_enqueueing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, twin: object, point: str
) -> None:
    """An enqueue that died before its acknowledgement happened wholly or not at all."""
    home = LiveHome(tmp_path / "home", every_steps=3)
    if point in faults.ENQUEUE:
        assert home.ftd("init").returncode == 0
    _armed(monkeypatch, tmp_path / "mark", point)
    assert home.ftd("enqueue", "-", stdin=SPEC).returncode == -9
    acknowledged = home.enqueue(SPEC)
    assert acknowledged["new"] + acknowledged["shared"] == 2
    assert acknowledged["shared"] == (2 if point == "enqueue.after_commit" else 0)
    _finish(home)
    _check(home, tmp_path / "mark", twin)


def test_every_point_is_named_and_reached_by_a_test() -> None:
    """The list of points and the calls in the source agree."""
    source = "\n".join(
        path.read_text()
        for path in Path(faults.__file__).parent.rglob("*.py")
        if path.name != "faults.py"
    )
    for point in faults.POINTS:
        stem, _, name = point.partition(":")
        called = f'"{stem}:{{path.name}}"' if name else f'"{point}"'
        assert called in source, point
    assert source.count("faults.point(") + source.count("faults.springs(") == len(
        {point.partition(":")[0] for point in faults.POINTS}
    )


def test_a_trap_springs_once_and_only_where_it_is_set(tmp_path: Path) -> None:
    """The n-th time at the named point, and never again once it is marked."""
    trap = faults.Trap("here@2", str(tmp_path / "mark"))
    assert [trap.springs(name) for name in ("there", "here", "here", "here")] == [
        False,
        False,
        True,
        False,
    ]
    assert not faults.Trap("here", str(tmp_path / "mark")).springs("here")
    os.unlink(tmp_path / "mark")
    assert faults.Trap("here", str(tmp_path / "mark")).springs("here")
