"""What somebody wrote, and where: plain values that remember their file and line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ftd.errors import SpecError

KeyPath = tuple[str | int, ...]


class Node(NamedTuple):
    """A value and where it was written: a scalar, a list of nodes or a mapping of nodes."""

    value: Any
    source: str
    line: int | None  # 1-based line of its key, or of itself in a list; None outside a file


@dataclass(frozen=True)
class Document:
    """One YAML text, read."""

    root: Node

    def plain(self) -> Any:
        """The document as ``dict``, ``list`` and scalars."""
        return _plain(self.root)

    def where(self, path: Sequence[str | int]) -> str:
        """``file:line: key.path`` of the node at `path`, or of its nearest ancestor's line."""
        node = self.root
        for part in path:
            child = _child(node, part)
            if child is None:
                break
            node = child
        if node.line is None or not path:
            return node.source
        return ": ".join(text for text in (f"{node.source}:{node.line}", dotted(path)) if text)

    def with_value(self, path: Sequence[str], node: Node) -> Document:
        """This document with `node` at `path`; mappings on the way are made where none is.

        Raises SpecError when something on the way is neither absent nor a mapping.
        """
        return Document(_with_value(self.root, path, node))


def dotted(path: Sequence[str | int]) -> str:
    """A path as people write it: ``factors.layers[1]``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def shown(value: object, limit: int = 60) -> str:
    """A plain value as one short line of YAML-like text, for messages and labels."""
    if isinstance(value, dict):
        text = "{" + ", ".join(f"{key}: {shown(item, limit)}" for key, item in value.items()) + "}"
    elif isinstance(value, list | tuple):
        text = "[" + ", ".join(shown(item, limit) for item in value) + "]"
    elif value is None or isinstance(value, bool):
        text = str(value).lower() if value is not None else "null"
    else:
        text = str(value)
    text = text.replace("\n", " ")
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _plain(node: Node) -> Any:
    value = node.value
    if isinstance(value, dict):
        return {key: _plain(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_plain(child) for child in value]
    return value


def _child(node: Node, part: str | int) -> Node | None:
    value = node.value
    if isinstance(value, dict):
        return value.get(part)
    if isinstance(value, list) and isinstance(part, int) and part < len(value):
        return value[part]  # type: ignore[no-any-return]
    return None


def _with_value(node: Node, path: Sequence[str], new: Node) -> Node:
    if not path:
        return new
    value = {} if node.value is None else node.value
    if not isinstance(value, dict):
        raise SpecError(
            f"there is no key '{path[0]}' to set below {shown(_plain(node))}", where=new.source
        )
    child = value.get(path[0], Node(None, new.source, new.line))
    return node._replace(value={**value, path[0]: _with_value(child, path[1:], new)})
