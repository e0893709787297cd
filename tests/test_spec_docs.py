"""The reference of specs: its examples plan, and it names every key with its default."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ftd import catalog
from ftd.explain import models_in
from ftd.plan import make_plan
from ftd.spec import SERVICE_KEYS, parse

REFERENCE = (Path(__file__).parent.parent / "docs" / "spec.md").read_text()
EXAMPLES = re.findall(r"```yaml\n(.*?)```", REFERENCE, flags=re.DOTALL)

CELLS = {
    "solar-cells": 4,
    "two-factors": 4,
    "named-levels": 2,
    "bundles": 2,
    "all-but-two": 4,
    "by-hand": 3,
}


@pytest.mark.parametrize("text", EXAMPLES, ids=lambda text: text.split()[1])
def test_every_example_is_a_spec(text: str) -> None:
    """What people copy out of the reference works and has the cells they would expect."""
    plan = make_plan(parse(text, "docs/spec.md"), Path("/"), device_kind="cpu")
    assert len(plan.cells) == CELLS[plan.name]


def test_no_example_is_missing() -> None:
    """The examples above are all that the reference shows."""
    assert len(EXAMPLES) == len(CELLS)


def default_of(field: FieldInfo) -> str:
    """A parameter's default as the reference writes it."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "none"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def rows(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The table row of every parameter: its path, default and description."""
    for name, field in model.model_fields.items():
        inner = models_in(field.annotation)
        if inner != [field.annotation]:  # a plain value, or one that may also be a mapping
            yield f"| `{prefix}{name}` | {default_of(field)} | {field.description} |"
        for found in inner:
            yield from rows(found, f"{prefix}{name}.")


@pytest.mark.parametrize("job", catalog.job_names())
def test_every_parameter_is_in_the_reference(job: str) -> None:
    """Each parameter has its row, with default and description as in the schema."""
    assert [row for row in rows(catalog.job(job).Params) if row not in REFERENCE] == []


def test_every_key_of_the_service_is_in_the_reference() -> None:
    """Each key has a row."""
    assert [key for key in SERVICE_KEYS if f"| `{key}` |" not in REFERENCE] == []
