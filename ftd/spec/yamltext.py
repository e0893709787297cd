"""YAML as people mean it: text becomes a Document.

The rules follow YAML 1.2's core schema, not 1.1: ``1e-3`` is a number, ``on off yes no`` are words,
``010`` is ten and ``1:30`` is text.  Tags, duplicate keys and several documents are errors, keys
are always text, and limits on size, depth and aliases keep a hostile text from costing anything.
Nothing in the text is ever executed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, NoReturn

import yaml

from ftd.document import Document, Node, shown
from ftd.errors import SpecError

MAX_BYTES = 8 << 20
MAX_DEPTH = 32
MAX_NODES = 1_000_000  # after expanding aliases

_CONSTANTS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


def read(text: str, source: str, *, lined: bool = True) -> Document:
    """Parse one YAML document; `source` names it in errors, with line numbers if `lined`.

    Raises SpecError, and nothing else, for text that is not acceptable YAML.
    """
    if len(text) > MAX_BYTES:
        raise SpecError(f"longer than {MAX_BYTES >> 20} MiB", where=source)
    try:
        return Document(_Reader(text, source, lined).document())
    except yaml.MarkedYAMLError as error:
        mark: Any = error.problem_mark  # typed as if the C parser's marks had no line
        raise SpecError(
            f"not valid YAML: {error.problem or error.context}",
            where=f"{source}:{mark.line + 1}" if lined and mark else source,
            fix="Check indentation, quotes and brackets there",
        ) from error
    except (yaml.YAMLError, UnicodeError) as error:
        raise SpecError(
            f"not valid YAML: {str(error).splitlines()[0]}",
            where=source,
            fix="Save it as UTF-8 text without control characters",
        ) from error


class _Reader:
    """Builds nodes from the parser's events, so that nothing is resolved by YAML 1.1's rules."""

    def __init__(self, text: str, source: str, lined: bool) -> None:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        self._events: Iterator[Any] = yaml.parse(text, Loader=loader)
        self._source = source
        self._lined = lined
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._num_nodes = 0
        self._num_anchors_open = 0

    def document(self) -> Node:
        next(self._events)  # start of the stream
        if isinstance(next(self._events), yaml.StreamEndEvent):
            return Node(None, self._source, 1 if self._lined else None)
        root = self._node(next(self._events), 0, None)
        next(self._events)  # end of the document
        extra = next(self._events)
        if not isinstance(extra, yaml.StreamEndEvent):
            self._refuse("a second document starts here", extra, "Keep one spec per file")
        return root

    def _node(self, event: Any, depth: int, key_line: int | None) -> Node:
        line = key_line or self._line(event)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, line)
        if event.tag is not None:
            self._refuse(f"tags such as {event.tag} are not understood", event, "Leave it out")
        if event.anchor is None:
            return Node(self._value(event, depth), self._source, line)
        before = self._num_nodes
        self._num_anchors_open += 1
        node = Node(self._value(event, depth), self._source, line)
        self._num_anchors_open -= 1
        self._anchors[event.anchor] = (node, self._num_nodes - before)
        return node

    def _value(self, event: Any, depth: int) -> Any:
        self._count(1, event)
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event)
        if depth == MAX_DEPTH:
            self._refuse(f"nested deeper than {MAX_DEPTH} levels", event, "Make it flatter")
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(depth)
        return self._sequence(depth)

    def _alias(self, event: Any, line: int | None) -> Node:
        found = self._anchors.get(event.anchor)
        if found is None:
            self._refuse(f"no anchor &{event.anchor} stands above", event, "Define it first")
        if self._num_anchors_open:  # a chain of them could be as deep as the text is long
            self._refuse("an alias inside an anchored value", event, "Write the value out")
        node, num_nodes = found
        self._count(num_nodes, event)
        return node._replace(line=line)

    def _mapping(self, depth: int) -> dict[str, Node]:
        value: dict[str, Node] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent) or event.tag is not None:
                self._refuse("a key must be a plain word", event, "Write `key: value`")
            key, line = event.value, self._line(event)
            if not key:
                self._refuse("a key is empty", event, "Write `key: value`")
            if key in value:
                first = f", first in line {value[key].line}" if self._lined else ""
                self._refuse(f"key '{key}' stands twice{first}", event, "Keep one")
            value[key] = self._node(next(self._events), depth + 1, line)
        return value

    def _sequence(self, depth: int) -> list[Node]:
        value = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            value.append(self._node(event, depth + 1, None))
        return value

    def _scalar(self, event: Any) -> str | int | float | bool | None:
        text: str = event.value
        if not event.implicit[0]:  # quoted
            return text
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        if text[0] not in "+-.0123456789":
            return text
        if _INTEGER.fullmatch(text):
            number = int(text, 0) if text[:2] in ("0x", "0o") else _decimal(text)
            if number is None or not -(2**63) <= number < 2**63:
                self._refuse("an integer beyond 64 bits", event, "Quote it if it is text")
            return number
        if _FLOAT.fullmatch(text):
            value = float(text)
            if not math.isfinite(value):
                self._refuse(f"{shown(text)} is too large a number", event, "Write a smaller one")
            return value
        return text

    def _count(self, num_nodes: int, event: Any) -> None:
        self._num_nodes += num_nodes
        if self._num_nodes > MAX_NODES:
            self._refuse(f"more than {MAX_NODES:,} values", event, "Use fewer, or fewer aliases")

    def _line(self, event: Any) -> int | None:
        return event.start_mark.line + 1 if self._lined else None

    def _refuse(self, what: str, event: Any, fix: str) -> NoReturn:
        line = self._line(event)
        raise SpecError(what, where=f"{self._source}:{line}" if line else self._source, fix=fix)


def _decimal(text: str) -> int | None:
    """The integer, or None when it has too many digits for any use."""
    return int(text) if len(text) <= 40 else None
