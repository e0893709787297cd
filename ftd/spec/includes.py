"""Fragments: files whose keys a spec takes over where it has none of its own.

Mappings are merged key by key, to any depth; whatever else stands twice, the spec's own value
counts, and a later file's over an earlier one's.  Fragments are read once, by whoever asks
(:func:`fragments`), and travel with the spec's text: what is planned later is what was read then.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from ftd.document import Document, Node, shown
from ftd.errors import InputError, SpecError
from ftd.regular import full_path, read_bytes
from ftd.spec import yamltext

MAX_FRAGMENTS = 100

Read = Callable[[str, str], str]  # name of a fragment, place that names it -> its text


def fragments(text: str, source: str, base: Path) -> dict[str, str]:
    """The text of every file that a spec includes, by its name seen from the folder `base`.

    Raises SpecError for what :func:`merged` refuses, and for files that cannot be read.
    """
    found: dict[str, str] = {}

    def read(name: str, where: str) -> str:
        if name not in found:
            if len(found) == MAX_FRAGMENTS:
                raise SpecError(f"more than {MAX_FRAGMENTS} included files", where=where)
            found[name] = _read(name, base, where)
            if sum(map(len, found.values())) > yamltext.MAX_BYTES:
                raise SpecError(
                    f"the included files are longer than {yamltext.MAX_BYTES >> 20} MiB together",
                    where=where,
                )
        return found[name]

    _Merging(source, read).document(text)
    return found


def merged(text: str, source: str, fragments: Mapping[str, str]) -> Document:
    """A spec's document with the keys of what it includes, whose texts are in `fragments`.

    Every value remembers the file and line it was written in; ``include`` itself is left out.
    Raises SpecError for text that is no mapping, and for files that include one another.
    """

    def read(name: str, where: str) -> str:
        if name not in fragments:
            raise SpecError(f"the text of {name} was not sent along", where=where)
        return fragments[name]

    return _Merging(source, read).document(text)


class _Merging:
    """One spec, and where the texts of its fragments come from."""

    def __init__(self, source: str, read: Read) -> None:
        self._source = source
        self._read = read
        self._num_merged = 0

    def document(self, text: str) -> Document:
        return Document(self._node(text, self._source, "", ()))

    def _node(self, text: str, source: str, folder: str, around: tuple[str, ...]) -> Node:
        document = yamltext.read(text, source)
        root = document.root
        if not isinstance(root.value, dict):
            raise SpecError(
                "empty" if root.value is None else "not a mapping of keys to values",
                where=source,
                fix="Write `key: value` lines"
                if around
                else "Begin with `experiment: NAME` and `job: NAME`",
            )
        own = root._replace(value={k: v for k, v in root.value.items() if k != "include"})
        included = Node({}, source, root.line)
        for entry, where in _entries(document):
            name = os.path.normpath(os.path.join(folder, entry))
            if name in around:
                raise SpecError(
                    f"{name} includes itself", where=where, fix=f"By way of {' -> '.join(around)}"
                )
            self._num_merged += 1
            if self._num_merged > MAX_FRAGMENTS:  # each may include the same ones again
                raise SpecError(f"more than {MAX_FRAGMENTS} included files", where=where)
            path = os.path.join(os.path.dirname(self._source), name)
            fragment = self._node(
                self._read(name, where), path, os.path.dirname(name), (*around, name)
            )
            included = _merged(included, fragment)
        return _merged(included, own)


def _entries(document: Document) -> list[tuple[str, str]]:
    """The files that a document includes: as written, and where."""
    written = document.root.value.get("include")
    if written is None:
        return []
    if not isinstance(written.value, list):
        raise SpecError(
            f"should be a list, not {shown(document.plain()['include'])}",
            where=document.where(("include",)),
            fix="Write include: [FILE, ...]",
        )
    found = []
    for index, entry in enumerate(written.value):
        where = document.where(("include", index))
        if not isinstance(entry.value, str) or not entry.value or "\0" in entry.value:
            raise SpecError("this is no file name", where=where, fix="Write include: [FILE, ...]")
        found.append((entry.value, where))
    return found


def _merged(under: Node, over: Node) -> Node:
    """`over`, with the keys that only `under` has; in the order of `under` first."""
    if not (isinstance(under.value, dict) and isinstance(over.value, dict)):
        return over
    value = dict(under.value)
    for key, node in over.value.items():
        value[key] = _merged(value[key], node) if key in value else node
    return over._replace(value=value)


def _read(name: str, base: Path, where: str) -> str:
    try:
        # one byte too many is refused when it is parsed
        return read_bytes(full_path(name, base), yamltext.MAX_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise SpecError(
            f"cannot read {name} ({error.strerror})", where=where, fix="Check the path"
        ) from error
    except InputError as error:
        raise SpecError(error.what, where=where, fix=error.fix) from error
    except UnicodeDecodeError as error:
        raise SpecError(f"{name} is not UTF-8 text", where=where, fix="Save it as UTF-8") from error
