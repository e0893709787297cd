"""Turns pydantic's ValidationError into one sentence for people.

The sentence says which key is meant, what is wrong with it, what is allowed and which allowed word
is closest to the one that was written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from ftd.document import KeyPath, shown
from ftd.errors import closest


@dataclass(frozen=True)
class Complaint:
    """What is wrong at `path`, and what to do about it."""

    path: KeyPath
    what: str
    fix: str
    whole: bool = False  # about several values together, not the one at `path`


def explain(
    error: ValidationError,
    data: Mapping[str, Any],
    model: type[BaseModel],
    also: Sequence[str] = (),
) -> Complaint:
    """The first complaint of `error`, raised when `model` was to be made from `data`.

    `also` names top-level keys that are allowed besides the fields of `model`.
    """
    found = _deepest([(_data_path(item["loc"], data), item) for item in error.errors()])
    path, first = found[0]
    what, fix = _words(path, first, data, model, also)
    num_more = len({path for path, _ in found}) - 1
    if num_more:
        what += f" (and {num_more} more error{'s' if num_more > 1 else ''})"
    return Complaint(path, what, fix, whole=first["type"] in ("value_error", "assertion_error"))


def did_you_mean(word: str, allowed: Sequence[str], near: str = "") -> str:
    """``Did you mean 'x'? Allowed: ...``: the closest allowed word, or `near`, and all of them."""
    near = near or closest(word, list(allowed))
    near = near[:1].upper() + near[1:]
    listed = f"Allowed: {', '.join(allowed)}" if allowed else ""
    return " ".join(text for text in (near, listed) if text)


def parameter_paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted paths of all fields of `model`, and of the models inside."""
    for name, field in model.model_fields.items():
        yield prefix + name
        for inner in models_in(field.annotation):
            yield from parameter_paths(inner, f"{prefix}{name}.")


def unknown_key(path: Sequence[str | int], model: type[BaseModel], also: Sequence[str] = ()) -> str:
    """What to say to somebody who wrote the unknown key `path`: the nearest known one, and all."""
    key = str(path[-1])
    siblings = [*_fields_at(model, path[:-1]), *(also if len(path) == 1 else ())]
    paths = list(parameter_paths(model))
    elsewhere = [path for path in paths if path.rpartition(".")[2] == key]
    if elsewhere:
        return f"Did you mean '{elsewhere[0]}'? Allowed here: {', '.join(siblings)}"
    return did_you_mean(key, siblings, closest(key, siblings) or closest(key, paths))


def _data_path(location: Sequence[str | int], data: Any) -> KeyPath:
    """The part of pydantic's location that exists in the data: it also names union branches."""
    path: list[str | int] = []
    for index, part in enumerate(location):
        if isinstance(data, Mapping) and part in data:
            data = data[str(part)]
        elif isinstance(data, list | tuple) and isinstance(part, int) and part < len(data):
            data = data[part]
        elif not (isinstance(data, Mapping) and index == len(location) - 1):
            continue
        path.append(part)
    return tuple(path)


def _deepest(found: list[tuple[KeyPath, Any]]) -> list[tuple[KeyPath, Any]]:
    """The errors worth telling, best first: of a union's branches, the one that fits the data."""
    paths = {path for path, _ in found}
    kept = [
        (path, item)
        for path, item in found
        if not any(len(other) > len(path) and other[: len(path)] == path for other in paths)
        or item["type"] in ("value_error", "assertion_error")
    ]
    return sorted(kept, key=lambda pair: _rank(pair[1]))


def _rank(item: Any) -> int:
    """Telling first: unknown keys, misspelled words, values out of range; then what fits less."""
    kind = item["type"]
    if kind == "extra_forbidden":
        return 0
    if kind in ("literal_error", "enum"):
        return 1 if isinstance(item["input"], str) else 3
    if kind == "missing":
        return 4
    return 5 if kind.endswith("_type") else 2


def _words(
    path: KeyPath, item: Any, data: Any, model: type[BaseModel], also: Sequence[str]
) -> tuple[str, str]:
    kind, context, value = item["type"], item.get("ctx", {}), item.get("input")
    if kind == "extra_forbidden":
        return f"unknown key '{path[-1]}'", unknown_key(path, model, also)
    if kind == "missing":
        return f"key '{path[-1]}' is missing", _instead(path, data, model)
    if kind in ("literal_error", "enum"):
        allowed = re.findall(r"'([^']*)'", context.get("expected", ""))
        return f"{shown(value)} is not allowed", did_you_mean(str(value), allowed)
    if kind in ("value_error", "assertion_error"):
        return str(context.get("error", item["msg"])), ""
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        return f"should be a mapping of keys to values, not {shown(value)}", ""
    message = re.split(", unable|, got", item["msg"].removeprefix("Input "))[0]
    what = f"{message[:1].lower()}{message[1:]}, not {shown(value)}"
    quotable = kind == "string_type" and isinstance(value, int | float)
    return what, "Write it in quotes" if quotable else ""


def _instead(path: KeyPath, data: Any, model: type[BaseModel]) -> str:
    """For a missing key: the unknown one that stands in its place, if any."""
    for part in path[:-1]:
        data = data[part]
    known = _fields_at(model, path[:-1])
    strangers = [key for key in data if key not in known]
    near = closest(str(path[-1]), strangers)
    written = near.removeprefix("did you mean ").removesuffix("?")
    return f"Write '{path[-1]}' instead of {written}" if near else f"Add '{path[-1]}: ...'"


def _fields_at(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    models = [model]
    for part in path:
        inner = [m.model_fields[str(part)] for m in models if str(part) in m.model_fields]
        if inner or not isinstance(part, int):
            models = [found for field in inner for found in models_in(field.annotation)]
    return [name for found in models for name in found.model_fields]


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that a value of type `annotation` may be: itself, or members of a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in models_in(part)]
