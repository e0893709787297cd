"""Turns pydantic's ValidationError into one sentence for people.

The sentence says which key is meant, what is wrong with it, what is allowed and which allowed word
is closest to the one that was written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from ftd.document import KeyPath, shown
from ftd.errors import closest, nearest

_NUMBERS = {int: "a whole number", float: "a number"}


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
    found = _deepest([(_data_path(item, data), item) for item in error.errors()])
    path, first = found[0]
    what, fix = _words(path, first, data, model, also)
    num_more = len({path for path, _ in found}) - 1
    if num_more:
        what += f" (and {num_more} more error{'s' if num_more > 1 else ''})"
    return Complaint(path, what, fix, whole=first["type"] in ("value_error", "assertion_error"))


def did_you_mean(word: str, allowed: Sequence[str], near: str = "") -> str:
    """``Did you mean 'x'? Allowed: ...``: the closest allowed word, or `near`, and all of them."""
    near = near or closest(word, list(allowed))
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


def _data_path(item: Any, data: Any) -> KeyPath:
    """The part of pydantic's location that exists in the data: it also names union branches."""
    path: list[str | int] = []
    location: Sequence[str | int] = item["loc"]
    last = len(location) - 1 if item["type"] == "missing" else None
    for index, part in enumerate(location):
        if isinstance(data, Mapping) and part in data:
            data = data[str(part)]
        elif isinstance(data, list | tuple) and isinstance(part, int) and part < len(data):
            data = data[part]
        elif not (isinstance(data, Mapping) and index == last):
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
        forms = [form for field in _fields(path, model) for form in _forms(field.annotation)]
        near = closest(str(value), allowed)
        return f"{shown(value)} is not allowed", did_you_mean("", [*allowed, *forms], near)
    if kind in ("value_error", "assertion_error"):
        return str(context.get("error", item["msg"])), ""
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        fix = _as_form(path, model) if kind == "dict_type" else ""
        return f"should be a mapping of keys to values, not {shown(value)}", fix
    if kind == "list_type":
        fix = _as_form(path, model) or f"Write [{shown(value)}]"
        return f"should be a list, not {shown(value)}", fix
    if kind == "too_short":
        return f"should have at least {context['min_length']} item, not {shown(value)}", ""
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
    near = nearest(str(path[-1]), strangers)
    return f"Write '{path[-1]}' instead of '{near}'" if near else f"Add '{path[-1]}: ...'"


def _as_form(path: KeyPath, model: type[BaseModel]) -> str:
    """What to say to somebody whose value at `path` has another form than its field."""
    for field in _fields(path, model):
        written = " or ".join(f"'{path[-1]}: {form}'" for form in _forms(field.annotation))
        return f"Write {written}" + ("" if field.is_required() else ", or leave it out")
    return ""


def _forms(annotation: Any) -> list[str]:
    """How values of type `annotation` are written, words aside: ``a number``, ``{file: ...}``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = annotation.model_fields.items()
        return ["{" + ", ".join(f"{name}: ..." for name, one in fields if one.is_required()) + "}"]
    if isinstance(annotation, type):
        return [_NUMBERS[annotation]] if annotation in _NUMBERS else []
    if get_origin(annotation) in (list, tuple):
        return [f"[{inner}, ...]" for inner in _forms(get_args(annotation)[0]) or ["VALUE"]]
    if get_origin(annotation) is dict:
        return [f"{{NAME: {inner}}}" for inner in _forms(get_args(annotation)[1]) or ["VALUE"]]
    return [form for part in get_args(annotation) for form in _forms(part)]


def _fields(path: KeyPath, model: type[BaseModel]) -> list[FieldInfo]:
    """The field that `path` names; several where a union has it in several members."""
    found = (inner.model_fields.get(str(path[-1])) for inner in _models_at(model, path[:-1]))
    return [field for field in found if field is not None]


def _fields_at(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    return [name for found in _models_at(model, path) for name in found.model_fields]


def _models_at(model: type[BaseModel], path: Sequence[str | int]) -> list[type[BaseModel]]:
    models = [model]
    keyed = False  # the next part is a key of a mapping of models, not a field
    for part in path:
        inner = [m.model_fields[str(part)] for m in models if str(part) in m.model_fields]
        if not keyed and (inner or not isinstance(part, int)):
            models = [found for field in inner for found in models_in(field.annotation)]
            keyed = any(get_origin(field.annotation) is dict for field in inner)
        elif not isinstance(part, int):
            keyed = False
    return models


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that a value of type `annotation` may be: itself, or members of a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in models_in(part)]
