"""The folder that a job's own program keeps its state in, handed from attempt to attempt."""

from __future__ import annotations

import os
from pathlib import Path

from ftd.protocol import WORKSPACE
from ftd.worker.workspace import workspace


def attempts(root: Path, *numbers: int) -> Path:
    """The folder of these attempts."""
    for number in numbers:
        (root / str(number)).mkdir()
    return root


def names(folder: Path) -> set[str]:
    """Everything below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_the_newest_earlier_one_is_copied_and_stays_as_it_is(tmp_path: Path) -> None:
    """Attempts that made none are passed over; what a later one writes is its own."""
    root = attempts(tmp_path, 1, 2, 3, 4)
    first = workspace(root, 1)
    assert names(first) == set()
    (first / "deep").mkdir()
    (first / "deep" / "state").write_text("1")
    second = workspace(root, 2)
    (second / "deep" / "state").write_text("2")
    (second / "more").write_text("2")
    fourth = workspace(root, 4)  # the third began nothing
    assert names(fourth) == {"deep", "deep/state", "more"}
    assert (fourth / "deep" / "state").read_text() == "2"
    assert (first / "deep" / "state").read_text() == "1" and not (first / "more").exists()


def test_asking_again_gives_the_same_folder(tmp_path: Path) -> None:
    """It is copied once: what was written there since is not lost."""
    root = attempts(tmp_path, 1, 2)
    (workspace(root, 1) / "state").write_text("1")
    (workspace(root, 2) / "state").write_text("2")
    assert (workspace(root, 2) / "state").read_text() == "2"


def test_a_copy_that_was_cut_off_does_not_count(tmp_path: Path) -> None:
    """The next attempt takes what is whole."""
    root = attempts(tmp_path, 1, 2, 3)
    (workspace(root, 1) / "state").write_text("1")
    (root / "2" / f".{WORKSPACE}.cut").mkdir()  # killed while it was copied
    assert names(workspace(root, 3)) == {"state"}


def test_links_stay_links_and_pipes_stay_behind(tmp_path: Path) -> None:
    """Programs leave links to their newest checkpoint, and sockets that nobody answers any more."""
    root = attempts(tmp_path, 1, 2)
    first = workspace(root, 1)
    (first / "step-9").write_text("9")
    (first / "latest").symlink_to("step-9")
    (first / "dangling").symlink_to("nowhere")
    os.mkfifo(first / "pipe")
    second = workspace(root, 2)
    assert names(second) == {"step-9", "latest", "dangling"}
    assert (second / "latest").readlink() == Path("step-9")
