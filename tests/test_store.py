"""The store without room: a cache that changes no number, and keeps no memory."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ftd import spare
from ftd.diskspace import is_out_of_room, is_storage_trouble
from ftd.job import Job
from ftd.spare import SpareRoom, drop_abandoned
from ftd.store import Store
from jobs.data.digits import digits_listing
from jobs.data.images import Images, decoded
from jobs.distance import Distance
from jobs.probe import Probe
from tests.disks import MIB, fill, small_disk_at
from tests.resume import Case, Stop, check_ways, run_in_parts, run_whole


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place of this test's own that stands for the memory of all."""
    place = tmp_path / "memory"
    place.mkdir()
    monkeypatch.setattr(spare, "MEMORY", place)
    return place


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 24 MiB."""
    with small_disk_at(tmp_path / "disk") as folder:
        yield folder


def _writers(text: str, made: list[str]) -> Callable[[], Mapping[str, Callable[[Path], Any]]]:
    def make() -> Mapping[str, Callable[[Path], Any]]:
        made.append(text)
        return {"text": lambda path: path.write_text(text)}

    return make


def _decode(store: Store) -> Images:
    return decoded(
        digits_listing(), "digits", 64, "bilinear",
        store=store, threads=1, progress=lambda done, total: None,
    )  # fmt: skip


def test_images_that_do_not_fit_are_the_same_images(
    tmp_path: Path, small_disk: Path, memory: Path
) -> None:
    """A full disk changes no pixel and kills nobody; the store never shows half an entry."""
    filler = fill(small_disk, leave=5 * MIB)
    store = Store(small_disk / "store")
    found, twin = _decode(store), _decode(Store(tmp_path / "store"))
    assert all(map(np.array_equal, found.shards, twin.shards))
    assert np.array_equal(found.digests, twin.digests)
    assert not list(small_disk.glob("store/images/**/*.npy"))
    assert len(list(memory.glob("*/images/*/images.npy"))) == 2
    store.close()
    assert not list(memory.iterdir())
    filler.unlink()
    _decode(Store(small_disk / "store"))
    assert len(list(small_disk.glob("store/images/*/images.npy"))) == 2, "with room they are kept"


def test_what_is_on_the_disk_is_used_without_room(small_disk: Path) -> None:
    """An entry that was made while there was room is read, not made again."""
    made: list[str] = []
    kept = Store(small_disk / "store").entry("kind", {"n": 1}, _writers("one", made))
    fill(small_disk)
    store = Store(small_disk / "store")
    two = [store.entry("kind", {"n": 2}, _writers("two", made)) for _ in range(2)]
    assert two[0] == two[1] and (two[0] / "text").read_text() == "two"
    assert store.entry("kind", {"n": 1}, _writers("one", made)) == kept
    assert store.has("kind", {"n": 1}) and store.has("kind", {"n": 2})
    assert not Store(small_disk / "store").has("kind", {"n": 2})
    assert made == ["one", "two", "two"], "on the disk, then in memory, and that is it"
    store.close()


def test_memory_is_bounded(small_disk: Path) -> None:
    """The entry after the one that passes the bound fails as a full disk does."""
    fill(small_disk)
    store = Store(small_disk / "store", spare_bytes=3000)
    for number in range(3):
        store.entry("kind", {"n": number}, _writers("x" * 1000, []))
    with pytest.raises(OSError) as caught:
        store.entry("kind", {"n": 3}, _writers("x", []))
    assert is_storage_trouble(caught.value) and is_out_of_room(caught.value)
    store.close()


@pytest.mark.parametrize("error", [errno.EIO, errno.EROFS, errno.ENOENT])
def test_other_trouble_is_not_hidden(tmp_path: Path, memory: Path, error: int) -> None:
    """A disk that fails is no disk that is full."""

    def make() -> Mapping[str, Callable[[Path], Any]]:
        raise OSError(error, os.strerror(error))

    with pytest.raises(OSError) as caught:
        Store(tmp_path / "store").entry("kind", {}, make)
    assert caught.value.errno == error
    assert not list(memory.iterdir())


def test_the_memory_of_the_killed_is_given_back(memory: Path) -> None:
    """What a killed process left is dropped, that of a living one is not."""
    code = (
        "import sys, time; from pathlib import Path; from ftd import spare\n"
        f"spare.MEMORY = Path({os.fspath(memory)!r})\n"
        "room = spare.SpareRoom(); print(room.folder, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().decode().strip())
        room = SpareRoom()
        drop_abandoned()
        assert left.is_dir() and room.folder.is_dir()
        process.send_signal(signal.SIGKILL)
    elsewhere = memory.parent / "elsewhere"
    elsewhere.mkdir()
    link = memory / f"{spare.PREFIX}link"
    link.symlink_to(elsewhere)
    drop_abandoned()
    assert sorted(memory.iterdir()) == sorted([room.folder, link]) and elsewhere.is_dir()
    link.unlink()
    room.close()
    assert not list(memory.iterdir())


# --- whole runs ---------------------------------------------------------------------------------

DIGITS = {
    "dataset": "digits", "decode_size": 28, "test_per_class": 5, "val_per_class": 3,
    "per_class": 5,
}  # fmt: skip
MINI = {"name": "mini8", "weights": "none"}
JOBS: dict[str, tuple[Job[Any], dict[str, Any]]] = {
    "probe": (
        Probe(),
        {
            "model": MINI, "target": DIGITS, "features": {"layer": "fc7"},
            "normalise": {"pca": 8}, "solver": {"C": [1, 10]},
        },
    ),
    "distance": (
        Distance(),
        {
            "model": MINI, "target": DIGITS, "source": {**DIGITS, "per_class": 8},
            "repeats": 2, "num_images": 30, "measures": ["cosine", "mmd"],
        },
    ),
}  # fmt: skip


@pytest.mark.usefixtures("torch_left_as_found")
@pytest.mark.parametrize("name", JOBS)
def test_a_run_without_room_in_the_store_is_the_same_run(
    name: str, tmp_path: Path, small_disk: Path, memory: Path
) -> None:
    """Images, features, bases and distances are then made in memory: same state, rows, files."""
    job, raw = JOBS[name]
    params = job.resolve(job.Params.model_validate(raw), Path())
    case = Case(job, params, tmp_path / "store")
    whole = run_whole(case, tmp_path / "whole")
    fill(small_disk)
    without = replace(case, store=small_disk / "store")
    assert not whole.outcome.difference(run_in_parts(without, tmp_path / "without", []))
    check_ways(without, whole, tmp_path / "ways", [[Stop(len(whole.places) // 2)]])
    assert not list(small_disk.glob("store/*/*/manifest.json"))
