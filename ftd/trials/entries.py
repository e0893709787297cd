"""The entries of a checkpoint's files, and checkpoints in which one of them is another.

An entry is a leaf of a JSON file, a tensor of a safetensors file, or any other file as a whole.
Tensors are their bytes here, so that nothing but the standard library is needed.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ftd.files import MANIFEST, seal_folder

LEFT_OUT, CHANGED = "left out", "changed"
WAYS = (LEFT_OUT, CHANGED)

Content = Any  # a file's entries: nested dicts and lists whose leaves are values
Contents = Mapping[str, Content]  # by file name

_LENGTH = struct.Struct("<Q")  # of a safetensors file's header
_METADATA = "__metadata__"
_OTHER = 0x3F  # such bytes are about 0.7 in every floating-point format but the longest


class Tensor(NamedTuple):
    """A tensor's bytes, and what they mean."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


@dataclass(frozen=True)
class Entry:
    """One entry: the file's name and the keys that lead to it there (none: the whole file)."""

    file: str
    keys: tuple[str | int, ...]

    def __str__(self) -> str:
        return ":".join([self.file, *map(str, self.keys)])


def contents_of(folder: Path) -> dict[str, Content]:
    """What the files of a sealed folder hold."""
    return {path.name: _read(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST}


def entries_in(contents: Contents) -> Iterator[Entry]:
    """Every entry."""
    for name, content in contents.items():
        for keys in _leaves(content):
            yield Entry(name, keys)


def altered(contents: Contents, entry: Entry, how: str) -> Iterator[dict[str, Content]]:
    """Copies of `contents` with `entry` left out, or with some other value in its place.

    There may be several other values; the copies share everything that is not changed.
    """
    if how == LEFT_OUT:
        copied, inside, last = _copy(contents, entry)
        del inside[last]
        yield copied
        return
    _, inside, last = _copy(contents, entry)
    for other in _others(inside[last]):
        copied, inside, last = _copy(contents, entry)
        inside[last] = other
        yield copied


def seal_contents(folder: Path, contents: Contents, manifest: Mapping[str, Any]) -> None:
    """Make the new `folder` a sealed one of these files, with `manifest`."""
    writers = {
        name: lambda path, content=content: _write(path, content)
        for name, content in contents.items()
    }
    seal_folder(folder, writers, manifest)


def _copy(contents: Contents, entry: Entry) -> tuple[dict[str, Content], Any, str | int]:
    """A copy of all, the dict or list inside it that holds the entry, and its key there."""
    *parents, last = (entry.file, *entry.keys)
    copied = _copied(dict(contents))
    inside = copied
    for key in parents:
        inside = inside[key]
    return copied, inside, last


def _copied(content: Content) -> Content:
    """A copy of all dicts and lists; values are never changed in place."""
    if isinstance(content, dict):
        return {key: _copied(value) for key, value in content.items()}
    return [_copied(value) for value in content] if isinstance(content, list) else content


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


def _others(value: Any) -> Iterator[Any]:
    """Other values of the same kind; of tensors, other bytes of the same type and shape."""
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
        case Tensor():
            other = 1 if value.dtype == "BOOL" else _OTHER
            yield value._replace(data=bytes([0 if any(value.data) else other]) * len(value.data))
        case _:  # null, and whatever is empty
            yield 1


def _read(path: Path) -> Content:
    data = path.read_bytes()
    if path.suffix == ".safetensors":
        return _tensors(data) or data
    return json.loads(data) if path.suffix == ".json" else data


def _write(path: Path, content: Content) -> None:
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif path.suffix == ".json":
        path.write_text(json.dumps(content))
    else:
        path.write_bytes(_safetensors(content))


def _tensors(data: bytes) -> dict[str, Tensor]:
    """The tensors in a safetensors file; its metadata are left out."""
    (length,) = _LENGTH.unpack_from(data)
    start = _LENGTH.size + length
    header = json.loads(data[_LENGTH.size : start])
    header.pop(_METADATA, None)
    found = {}
    for name, about in header.items():
        begin, end = about["data_offsets"]
        found[name] = Tensor(
            about["dtype"], tuple(about["shape"]), data[start + begin : start + end]
        )
    return found


def _safetensors(tensors: Mapping[str, Tensor]) -> bytes:
    header, offset = {}, 0
    for name, tensor in tensors.items():
        end = offset + len(tensor.data)
        header[name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at multiples of eight
    return _LENGTH.pack(len(text)) + text + b"".join(one.data for one in tensors.values())
