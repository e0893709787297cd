"""Data that is not mounted yet, or went away: runs wait for it and go on by themselves."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ftd.config import Retries
from ftd.daemon.log import Log
from ftd.daemon.retry import DATA_WAIT_MAX_S, DATA_WAIT_S, data_wait_s, longest_wait_s
from ftd.daemon.waits import Waits
from ftd.errors import DataError, DataNotThere
from ftd.files import read_json, seal_json
from ftd.inputs import fingerprint, verify
from ftd.job import Input
from ftd.layout import Home
from ftd.ledger import data_waits, execution, failures, reads, scheduling, wishes
from ftd.ledger.db import Ledger
from ftd.ledger.details import run_details
from ftd.ledger.execution import Ending
from ftd.ledger.models import Attempt, Run
from ftd.protocol import EVENTS, ORDER, RESULT, Result
from ftd.states import Outcome, RunState, Wish
from ftd.store import Store
from jobs.data.folder import folder_listing
from jobs.data.images import decoded
from jobs.data.listing import Listing
from tests.homes import DEADLINE_S, LiveHome, outcome_of, serving
from tests.ledgers import enqueue, new_ledger, plan
from tests.orders import order

SPEC = """
experiment: mounted
job: finetune
model: {{name: resnet18, weights: none}}
layers: "R(1-last)"
target: {{dataset: folder, folder: "{folder}", decode_size: 28, val_per_class: 1}}
train: {{epochs: 1, batch_size: 8}}
factors: {{train.lr: [0.01, 0.02]}}
"""


def _save_images(root: Path) -> None:
    """Noise in two brightnesses, the same bytes whenever it is made."""
    draw = np.random.default_rng(1)
    for name, least in (("dark", 0), ("light", 120)):
        (root / name).mkdir(parents=True)
        for index in range(6):
            pixels = draw.integers(least, least + 120, (28, 28, 3), dtype=np.uint8)
            path = root / name / f"{index}.png"
            Image.fromarray(pixels).save(path)
            os.utime(path, (1e9, 1e9))


# What counts as not there.


def _planned(path: Path, kind: str = "folder") -> tuple[Input, str]:
    source = Input(kind, str(path))  # type: ignore[arg-type]
    return source, fingerprint(source)


def _verdict(source: Input, planned: str) -> type[Exception] | None:
    try:
        verify("target", source, planned)
    except DataError as error:
        assert source.where in str(error)
        return type(error)
    return None


def test_absent_data_is_told_from_changed_data(tmp_path: Path) -> None:
    """Gone, below something gone, below a file, or an empty mount point: not there, not changed."""
    root = tmp_path / "disk" / "images"
    _save_images(root)
    folder, file = _planned(root), _planned(root / "dark" / "0.png", "file")
    assert _verdict(*folder) is _verdict(*file) is None

    (root / "dark" / "0.png").unlink()
    assert _verdict(*folder) is DataError
    assert _verdict(*file) is DataNotThere

    root.rename(tmp_path / "elsewhere")
    assert _verdict(*folder) is _verdict(*file) is DataNotThere
    root.mkdir()
    assert _verdict(*folder) is DataNotThere
    (root / "other").mkdir()
    assert _verdict(*folder) is DataError
    (root / "other").rmdir()
    root.rmdir()
    root.parent.rmdir()
    assert _verdict(*folder) is _verdict(*file) is DataNotThere
    root.parent.write_text("")
    assert _verdict(*folder) is _verdict(*file) is DataNotThere


def test_what_can_never_be_read_is_not_waited_for(tmp_path: Path) -> None:
    """A loop of links, a fifo where a file was, or a folder one may not read are there, but bad."""
    root = tmp_path / "images"
    _save_images(root)
    folder, file = _planned(root), _planned(root / "dark" / "0.png", "file")
    (root / "dark" / "0.png").unlink()
    os.mkfifo(root / "dark" / "0.png")
    assert _verdict(*file) is DataError
    root.rename(tmp_path / "elsewhere")
    root.symlink_to(root)
    assert _verdict(*folder) is DataError


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_forbidden_data_is_refused(tmp_path: Path) -> None:
    """Permissions do not come back by themselves."""
    root = tmp_path / "images"
    _save_images(root)
    folder = _planned(root)
    root.chmod(0)
    assert _verdict(*folder) is DataError
    root.chmod(0o700)


def test_a_folder_that_was_empty_when_planned_may_be_empty(tmp_path: Path) -> None:
    """An empty folder is only suspicious when it had files."""
    (tmp_path / "images").mkdir()
    assert _verdict(*_planned(tmp_path / "images")) is None


def test_a_dead_file_server_is_not_there(tmp_path: Path) -> None:
    """A mount whose server is gone answers with errors of its own (here: FUSE's ENOTCONN)."""
    root = tmp_path / "images"
    _save_images(root)
    folder = _planned(root)
    file = _planned(root / "dark" / "0.png", "file")
    with _dead_mount(root):
        with pytest.raises(OSError) as caught:
            root.stat()
        assert caught.value.errno == errno.ENOTCONN
        assert _verdict(*folder) is _verdict(*file) is DataNotThere
    assert _verdict(*folder) is _verdict(*file) is None


def test_a_class_folder_that_cannot_be_read_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    """Otherwise a run would train on the classes whose disk is still there."""
    root = tmp_path / "images"
    _save_images(root)
    with _dead_mount(root / "light"), pytest.raises(OSError) as caught:
        folder_listing(root, given=False)
    assert caught.value.errno == errno.ENOTCONN


@contextmanager
def _dead_mount(folder: Path) -> Iterator[None]:
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        server = os.open("/dev/fuse", os.O_RDWR)
    except OSError:
        pytest.skip("no /dev/fuse that we may use")
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0".encode()
    mounted = libc.mount(b"dead", os.fsencode(folder), b"fuse", 0, options)
    os.close(server)
    if mounted:
        pytest.skip("mounting needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


# One attempt.


def _start(run: Path, folder: Input, planned: str, **params: Any) -> subprocess.Popen[bytes]:
    directory = run / "attempts" / "1"
    directory.mkdir(parents=True)
    inputs = {"target": {"kind": folder.kind, "where": folder.where, "fingerprint": planned}}
    seal_json(directory / ORDER, order(inputs=inputs, params=params).as_json())
    return subprocess.Popen([sys.executable, "-P", "-m", "ftd.worker", str(directory)])


def _result(run: Path) -> Mapping[str, Any]:
    result = read_json(run / "attempts" / "1" / RESULT)
    assert result is not None
    return result


def test_an_attempt_without_its_data_stops(tmp_path: Path) -> None:
    """It says what is missing; nothing counts as a failure."""
    _save_images(tmp_path / "images")
    folder, planned = _planned(tmp_path / "images")
    (tmp_path / "images").rename(tmp_path / "away")
    assert _start(tmp_path / "run", folder, planned, steps=5).wait() == 75
    result = _result(tmp_path / "run")
    assert (result["outcome"], result["why"]) == ("stopped", "data")
    assert result["missing"] == folder.where
    assert f"cannot read folder {folder.where}" in result["error"]


@pytest.mark.parametrize("gone", [False, True])
def test_an_error_while_the_data_is_away_is_no_refusal(tmp_path: Path, gone: bool) -> None:
    """A job refuses what it finds: with its folder gone it stops instead, and waits."""
    _save_images(tmp_path / "images")
    folder, planned = _planned(tmp_path / "images")
    run = tmp_path / "run"
    failing = {"fail_at_step": 100, "fail_with": "refuse"}
    worker = _start(run, folder, planned, steps=200, step_s=0.02, **failing)
    events = run / "attempts" / "1" / EVENTS
    while not events.exists() or b'"metric"' not in events.read_bytes():
        assert worker.poll() is None
    if gone:
        (tmp_path / "images").rename(tmp_path / "away")
    worker.wait()
    assert _result(run)["outcome"] == ("stopped" if gone else "refused")


@pytest.mark.parametrize(
    ("number", "expected"), [(errno.ESTALE, DataNotThere), (errno.EIO, DataError)]
)
def test_a_server_that_goes_while_images_are_decoded(
    tmp_path: Path, number: int, expected: type[Exception]
) -> None:
    """What only a lost server reports is not the image's fault; a bad block is."""

    def lost(index: int) -> bytes:
        raise OSError(number, os.strerror(number))

    listing = Listing(
        class_names=("a", "b"),
        ids=("a/0.png", "b/0.png"),
        labels=np.array([0, 1]),
        content=lost,
        image=lambda content: Image.new("RGB", (8, 8)),
        where="/data/x",
    )
    with pytest.raises(DataError, match=r"a/0\.png") as caught:
        decoded(
            listing, "f", 8, "bilinear", store=Store(tmp_path), threads=1,
            progress=lambda done, total: None,
        )  # fmt: skip
    assert type(caught.value) is expected


# Many runs.


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A ledger with six admitted runs: 1 to 4 read ``/data/x``, 5 and 6 ``/data/y``."""
    found = new_ledger(tmp_path)
    planned = plan(levels=(1, 2, 3, 4, 5, 6), replicates=1)
    runs = (
        replace(run, inputs={"target": {"kind": "folder", "where": where, "fingerprint": "f"}})
        for run, where in zip(planned.runs, ["/data/x"] * 4 + ["/data/y"] * 2, strict=True)
    )
    enqueue(found, replace(planned, runs=tuple(runs)))
    yield found
    found.close()


def _look_in_vain(ledger: Ledger, run: int, missing: str, until: float) -> None:
    attempt = execution.start_attempt(ledger, run, f"cpu:{run}")
    assert attempt is not None
    result = Result(Outcome.STOPPED, why="data", missing=missing, error="gone")
    ending = Ending(Outcome.STOPPED, RunState.QUEUED, result, error="gone", not_before=until)
    assert execution.end_attempt(ledger, attempt, ending) == RunState.QUEUED


def _eligible(ledger: Ledger, at: float) -> list[int]:
    return scheduling.eligible_runs(ledger, "cpu", at, 9)


def test_one_run_looks_for_all(ledger: Ledger) -> None:
    """What one does not find nobody else looks for meanwhile; other data is another matter."""
    _look_in_vain(ledger, 1, "/data/x", until=100.0)
    assert _eligible(ledger, 99.0) == [5, 6]
    assert _eligible(ledger, 100.0) == [1, 5, 6]
    looking = execution.start_attempt(ledger, 1, "cpu:0")
    assert _eligible(ledger, 100.0) == [5, 6]
    assert looking is not None and not looking.begun
    waiting = data_waits.words("/data/x")
    data_waits.go_on(ledger, waiting)
    assert _eligible(ledger, 0.0) == [2, 3, 4, 5, 6]
    assert [row.error for row in reads.runs(ledger)] == [None] * 6


def test_a_run_that_dies_looking_blocks_nobody(ledger: Ledger) -> None:
    """The next one looks as soon as the first is gone, or is not wanted any more."""
    _look_in_vain(ledger, 1, "/data/x", until=100.0)
    looking = execution.start_attempt(ledger, 1, "cpu:0")
    assert looking is not None
    killed = Ending(Outcome.KILLED, RunState.QUEUED, None, error="killed", not_before=200.0)
    execution.end_attempt(ledger, looking, killed)
    assert _eligible(ledger, 100.0) == [2, 5, 6]
    wishes.wish(ledger, [2], Wish.HOLD, who="ann")
    assert _eligible(ledger, 100.0) == [3, 5, 6]


def test_a_new_daemon_looks_at_once(ledger: Ledger) -> None:
    """After a reboot nobody waits for the rest of an old interval."""
    _look_in_vain(ledger, 1, "/data/x", until=1e12)
    assert data_waits.look_now(ledger) == [data_waits.words("/data/x")]
    assert _eligible(ledger, 0.0) == [1, 5, 6]


def test_looking_in_vain_costs_no_budget_and_no_time(ledger: Ledger) -> None:
    """Neither retries, nor the circuit breaker, nor the time limit count it."""
    for _ in range(3):
        _look_in_vain(ledger, 1, "/data/x", until=0.0)
    ledger.write(Attempt.update(started_at=0.0, ended_at=50.0))
    assert failures.quick_failures(ledger, 1, 3, 60.0) == []
    attempt = execution.start_attempt(ledger, 1, "cpu:0")
    assert attempt is not None
    assert (attempt.num_failures, attempt.spent_s) == (0, 0.0)


@given(st.integers(1, 10_000))
def test_looks_become_rarer(looks: int) -> None:
    """Each wait is twice as long as the one before, up to the longest."""
    assert data_wait_s(1) == DATA_WAIT_S
    longer = data_wait_s(looks + 1)
    assert longer == min(2 * data_wait_s(looks), DATA_WAIT_MAX_S)
    assert longer <= longest_wait_s(Retries(backoff_max_s=0.0))


@pytest.fixture
def waits(ledger: Ledger, tmp_path: Path) -> Waits:
    """A daemon's part that ends waits."""
    return Waits(ledger, Retries(), Log(Home(tmp_path / "home"), json_lines=True))


def test_the_first_run_that_finds_the_data_brings_the_others_forward(
    ledger: Ledger, waits: Waits
) -> None:
    """Only one that began after the last look in vain: an older one may not need it any more."""
    waits.review()
    early = execution.start_attempt(ledger, 2, "cpu:9")
    assert early is not None
    late = replace(early, id=early.id + 2)  # that of the look in vain is between them
    _look_in_vain(ledger, 1, "/data/x", until=1e12)
    (looked,) = (row for row in run_details(ledger, 1)["attempts"])
    assert looked["stop_why"] == "data"
    assert waits.next_look_s("/data/x") == DATA_WAIT_S
    waits.not_found("/data/x", replace(early, id=early.id + 1))
    assert waits.next_look_s("/data/x") == 2 * DATA_WAIT_S
    waits.found(early)
    assert _eligible(ledger, 0.0) == [5, 6]
    waits.found(late)
    assert _eligible(ledger, 0.0) == [1, 3, 4, 5, 6]
    assert waits.next_look_s("/data/x") == DATA_WAIT_S


@pytest.mark.parametrize("back_s", [0.0, 3600.0])
def test_a_clock_that_is_set_back_prolongs_no_wait(
    ledger: Ledger, waits: Waits, monkeypatch: pytest.MonkeyPatch, back_s: float
) -> None:
    """Waits beyond the longest that can be meant end; others go on."""
    at = time.time()
    waits.review()
    _look_in_vain(ledger, 1, "/data/x", until=at + 250.0)
    waits.review()
    monkeypatch.setattr(time, "time", lambda: at - back_s)
    waits.review()
    assert _eligible(ledger, at - back_s) == ([1, 5, 6] if back_s else [5, 6])


def test_a_wait_from_a_clock_that_was_wrong_ends_at_the_next_start(
    ledger: Ledger, waits: Waits
) -> None:
    """A machine may boot with a clock that is hours behind."""
    ledger.write(Run.update(not_before=time.time() + 3600.0, error="boom").where(Run.id == 1))
    ledger.write(Run.update(not_before=time.time() + 200.0, error="boom").where(Run.id == 2))
    waits.review()
    assert 1 in _eligible(ledger, time.time())
    assert 2 not in _eligible(ledger, time.time())


# Whole homes.

TWIN = tuple[Path, Mapping[str, Any]]


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> TWIN:
    """Images, and what the spec gives when they are always there."""
    root = tmp_path_factory.mktemp("twin")
    _save_images(root / "images")
    home = LiveHome(root / "home")
    home.enqueue(SPEC.format(folder=root / "images"))
    assert home.finish() == 0, home.log()
    return root / "images", outcome_of(home)


def _reasons(home: LiveHome) -> dict[str, str]:
    return {row["id"]: row["reason"] for row in home.json("status")["queued"]}


def _until_all_wait(home: LiveHome, folder: Path, *runs: str) -> None:
    says = re.compile(
        rf"waits for its data: {re.escape(str(folder))} is not there \(is it mounted\?\); "
        r"looks again (in \d+ s|next)"
    )

    def wait() -> bool:
        found = _reasons(home)
        return all(says.fullmatch(found.get(run, "")) for run in runs)

    home.until(wait, f"{runs} wait for {folder}")


def test_runs_wait_for_a_folder_and_go_on_when_it_is_back(tmp_path: Path, twin: TWIN) -> None:
    """After a boot without the data one run looks for all; then all end like their twins."""
    images, expected = twin
    home = LiveHome(tmp_path / "home")
    home.enqueue(SPEC.format(folder=images))
    home.enqueue("experiment: other\njob: drill\nsteps: 3\n")
    away = images.with_name("away")
    images.rename(away)
    try:
        refused = home.ftd("enqueue", "-", stdin=SPEC.format(folder=images))
        assert refused.returncode == 2
        daemon = home.start_daemon("--until-idle")
        _until_all_wait(home, images, "r1", "r2")
        home.until(lambda: home.states()[2] == "done", "what needs no data is done")
    finally:
        away.rename(images)
    assert daemon.wait(DEADLINE_S) == 0, home.log()
    assert {run: found for run, found in outcome_of(home).items() if run != "r3"} == expected

    tries = {run: home.json("show", run)["attempts"] for run in ("r1", "r2")}
    for *looks, last in tries.values():
        assert {(look["outcome"], look["stop_why"]) for look in looks} <= {("stopped", "data")}
        assert (last["outcome"], last["stop_why"]) == ("completed", None)
    assert min(map(len, tries.values())) <= 2  # one looks for both
    history = home.json("show", "r1")["history"]
    assert any("cannot read folder" in str(event["data"]) for event in history)
    assert home.log().count("is it mounted?)") == 2  # when they began to wait, when they went on
    assert home.log().count("going on") == 1
    assert all(run["error"] is None for run in home.runs())


def test_wishes_count_while_data_is_away(tmp_path: Path, twin: TWIN) -> None:
    """Waiting runs are held, released and cancelled; an empty mount point is no data."""
    images, expected = twin
    folder = tmp_path / "images"
    folder.mkdir()
    with _mounted(images, folder):
        home = LiveHome(tmp_path / "home")
        home.enqueue(SPEC.format(folder=folder))
    with serving(home):
        _until_all_wait(home, folder, "r1", "r2")
        assert home.ftd("cancel", "r2").returncode == 0
        assert home.ftd("hold", "r1").returncode == 0
        home.until_states("held", "cancelled")
        assert home.ftd("release", "r1").returncode == 0
        _until_all_wait(home, folder, "r1")
        with _mounted(images, folder):
            home.until_states("done", "cancelled")
    found = {run["id"]: run["state_sha256"] for run in home.runs()}
    assert found == {"r1": expected["r1"][1], "r2": None}


@contextmanager
def _mounted(images: Path, folder: Path) -> Iterator[None]:
    """The images at `folder`, by a real mount where we may make one."""
    done = subprocess.run(["mount", "--bind", str(images), str(folder)], capture_output=True)
    if done.returncode == 0:
        try:
            yield
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True)
        return
    empty = folder.with_name("empty")
    folder.rename(empty)
    images.rename(folder)
    try:
        yield
    finally:
        folder.rename(images)
        empty.rename(folder)
