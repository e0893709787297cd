"""Sealed files, folders and streams: complete or absent, whatever happens in between."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftd import files


def test_a_failed_seal_leaves_the_old_file(tmp_path: Path) -> None:
    """When the rename cannot happen, the old content stays and nothing is left behind."""
    path = tmp_path / "folder"
    path.mkdir()
    with pytest.raises(OSError):
        files.seal(path, b"new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_a_sealed_folder_with_a_failing_writer_does_not_appear(tmp_path: Path) -> None:
    """A writer that raises leaves no folder and no leftovers."""

    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError):
        files.seal_folder(tmp_path / "c", {"good": lambda p: None or _write(p), "bad": fail}, {})
    assert list(tmp_path.iterdir()) == []


def _write(path: Path) -> None:
    path.write_bytes(b"payload")


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "manifest"])
def test_a_damaged_sealed_folder_is_noticed(tmp_path: Path, damage: str) -> None:
    """A file that is shorter, altered or gone, or a torn manifest, makes the folder unusable."""
    folder = tmp_path / "c"
    files.seal_folder(folder, {"state": _write}, {"step": 3})
    manifest = files.sealed_folder(folder)
    assert manifest is not None
    assert manifest["step"] == 3
    state = folder / "state"
    if damage == "truncate":
        os.truncate(state, 3)
    elif damage == "flip":
        state.write_bytes(b"pbyload")
    elif damage == "remove":
        state.unlink()
    else:
        os.truncate(folder / files.MANIFEST, 10)
    assert files.sealed_folder(folder) is None


@given(st.lists(st.dictionaries(st.text(), st.integers()), max_size=8), st.integers(0, 400))
def test_only_whole_lines_of_a_stream_count(
    tmp_path_factory: pytest.TempPathFactory, events: list[dict[str, int]], cut: int
) -> None:
    """However a stream is cut off, what is read is exactly the lines that have their newline."""
    path = tmp_path_factory.mktemp("stream") / "events.jsonl"
    stream = files.Stream(path)
    for event in events:
        stream.append(event)
    stream.close()
    whole = path.read_bytes()
    os.truncate(path, min(cut, len(whole)))
    lines, offset = files.complete_lines(path, 0)
    assert [json.loads(line) for line in lines] == events[: len(lines)]
    assert offset == len(b"".join(line + b"\n" for line in lines))
    path.write_bytes(whole)
    rest, end = files.complete_lines(path, offset)
    assert [json.loads(line) for line in (*lines, *rest)] == events
    assert end == len(whole)


def test_a_line_longer_than_the_read_limit_is_read_whole(tmp_path: Path) -> None:
    """The limit bounds memory, not the length of a line."""
    path = tmp_path / "events.jsonl"
    stream = files.Stream(path)
    stream.append({"text": "x" * 5000})
    stream.append({"n": 1})
    lines, offset = files.complete_lines(path, 0, limit=50)
    assert json.loads(lines[0])["text"] == "x" * 5000
    rest, end = files.complete_lines(path, offset, limit=50)
    assert [*lines[1:], *rest] == [b'{"n":1}']
    assert end == path.stat().st_size


def test_a_lock_has_one_holder(tmp_path: Path) -> None:
    """A second taker gets nothing until the first lets go."""
    first = files.try_lock(tmp_path / "lock")
    assert first is not None
    assert files.try_lock(tmp_path / "lock") is None
    os.close(first)
    again = files.try_lock(tmp_path / "lock")
    assert again is not None
    os.close(again)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become two users")
def test_another_users_lock_file_can_be_locked() -> None:
    """In a shared sticky folder, users lock the same file one after the other."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o1777)
        path = Path(folder) / "cpu-0.lock"
        assert [_locks_as(uid, path) for uid in (1234, 1235, 1234)] == [True] * 3


def _locks_as(uid: int, path: Path) -> bool:
    """Whether a process of user `uid` gets the lock."""
    child = os.fork()
    if child == 0:
        os.umask(0o077)
        os.setuid(uid)
        try:
            os._exit(0 if files.try_lock(path, 0o666) is not None else 1)
        except OSError:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
