"""Whether every entry of a job's checkpoints matters: each is left out, and changed, in turn.

An entry is a tensor of a safetensors file, a leaf of a JSON file, or any other file as a whole.
A resumed run has to fail or to end differently without it, or the entry has no place in the format.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ftd.files import MANIFEST, read_json, seal_folder
from tests.resume import Attempts, Case, Stop, Whole

LEFT_OUT, CHANGED = "left out", "changed"
Content = Any  # a file's entries: nested dicts and lists whose leaves are values


@dataclass(frozen=True)
class Situation:
    """A run to resume: `case` left at a place (from 1) of its `whole` run."""

    case: Case
    whole: Whole
    place: int


@dataclass(frozen=True)
class Entry:
    """One entry: the file's name and the keys that lead to it there (none: the whole file)."""

    file: str
    keys: tuple[str | int, ...]

    def __str__(self) -> str:
        return ":".join([self.file, *map(str, self.keys)])


def check_entries(situations: Sequence[Situation], root: Path) -> int:
    """Each entry of the checkpoints left in these situations matters in one of them at least.

    Both leaving it out and changing it must show.  Returns how many entries there are.
    """
    left = [_left(situation, root / f"left-{n}") for n, situation in enumerate(situations)]
    harmless = {
        (entry, how): None
        for attempts in left
        for entry in _entries(_checkpoint(attempts))
        for how in (LEFT_OUT, CHANGED)
    }
    num_entries = len(harmless) // 2
    assert num_entries, "the checkpoints are empty"
    for situation, attempts in zip(situations, left, strict=True):
        for entry, how in list(harmless):
            if _matters(situation.whole, attempts, entry, how):
                del harmless[entry, how]
    assert not harmless, "it makes no difference when " + ", ".join(
        f"{entry} is {how}" for entry, how in harmless
    )
    return num_entries


def _left(situation: Situation, root: Path) -> Attempts:
    """The run as it was left; resumed from an equal checkpoint, it ends as the whole one."""
    attempts = Attempts(situation.case, root)
    assert attempts.run(Stop(situation.place)) is None, f"no place {situation.place}"
    with _resealed(attempts, _contents(_checkpoint(attempts))) as copy:
        difference = _difference(situation.whole, copy)
    assert not difference, f"left at place {situation.place}, a run ends differently: {difference}"
    return attempts


def _matters(whole: Whole, left: Attempts, entry: Entry, how: str) -> bool:
    """Whether the run fails or ends differently when `entry` is changed before it is resumed."""
    contents = _contents(_checkpoint(left))
    if entry.file not in contents or entry.keys not in _leaves(contents[entry.file]):
        return False  # a checkpoint of another situation holds it
    for changed in _without(contents, entry, how):
        with _resealed(left, changed) as copy:
            try:
                if _difference(whole, copy):
                    return True
            except Exception:  # whatever it is, the change did not go unnoticed
                return True
    return False


@contextmanager
def _resealed(left: Attempts, contents: Mapping[str, Content]) -> Iterator[Attempts]:
    """The same attempts, their checkpoint being one of these `contents`."""
    with TemporaryDirectory(dir=left.root.parent) as folder:
        copy = left.copied(Path(folder) / "run")
        _seal(_checkpoint(copy), contents)
        yield copy


def _difference(whole: Whole, attempts: Attempts) -> str:
    """How the run differs from the whole one when another attempt completes it."""
    completed = attempts.run()
    assert completed is not None
    return whole.outcome.difference(attempts.outcome(completed))


# --- checkpoints as nested dicts --------------------------------------------------------------


def _checkpoint(attempts: Attempts) -> Path:
    return max(attempts.root.glob("checkpoint-*"))


def _contents(folder: Path) -> dict[str, Content]:
    return {path.name: _read(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST}


def _entries(folder: Path) -> Iterator[Entry]:
    for name, content in _contents(folder).items():
        for keys in _leaves(content):
            yield Entry(name, keys)


def _leaves(content: Content) -> Iterator[tuple[str | int, ...]]:
    items: Iterator[tuple[str | int, Content]] | None = None
    if isinstance(content, dict) and content:
        items = iter(content.items())
    elif isinstance(content, list) and content:
        items = iter(enumerate(content))
    if items is None:
        yield ()
        return
    for key, value in items:
        for keys in _leaves(value):
            yield (key, *keys)


def _read(path: Path) -> Content:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file  # jobs without torch are tested as well

        return load_file(path) or path.read_bytes()
    return json.loads(path.read_text()) if path.suffix == ".json" else path.read_bytes()


def _write(path: Path, content: Content) -> None:
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif path.suffix == ".json":
        path.write_text(json.dumps(content))
    else:
        from safetensors.torch import save_file

        save_file(content, path)


def _seal(folder: Path, contents: Mapping[str, Content]) -> None:
    """Make `folder` a checkpoint of these files, of the same step, as if it had been saved so."""
    manifest = read_json(folder / MANIFEST)
    assert manifest is not None
    shutil.rmtree(folder)
    writers = {
        name: lambda path, content=content: _write(path, content)
        for name, content in contents.items()
    }
    seal_folder(folder, writers, {"step": manifest["step"]})


def _without(contents: Mapping[str, Content], entry: Entry, how: str) -> Iterator[dict[str, Any]]:
    """Copies of `contents` with `entry` left out, or with some other value in its place."""
    *parents, last = (entry.file, *entry.keys)

    def copy() -> tuple[dict[str, Content], Any]:
        """A copy of all, and the dict or list inside it that holds the entry."""
        copied = inside = _copied(dict(contents))
        for key in parents:
            inside = inside[key]
        return copied, inside

    if how == LEFT_OUT:
        copied, inside = copy()
        del inside[last]
        yield copied
        return
    for other in _others(copy()[1][last]):
        copied, inside = copy()
        inside[last] = other
        yield copied


def _copied(content: Content) -> Content:
    """A copy of all dicts and lists; values are never changed in place."""
    if isinstance(content, dict):
        return {key: _copied(value) for key, value in content.items()}
    return [_copied(value) for value in content] if isinstance(content, list) else content


def _others(value: Any) -> Iterator[Any]:
    """Other values of the same kind, tensors of the same type and shape."""
    match value:
        case bool():
            yield not value
        case int() | float():
            yield value + 1
            yield value - 1
        case str():
            yield f"{value}x"
        case bytes():
            yield bytes([*value[:-1], value[-1] ^ 1]) if value else b"x"
        case None | {} | []:
            yield 1
        case tensor:
            same_shape = tensor.new_zeros if tensor.any() else tensor.new_ones
            yield same_shape(tensor.shape)
