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
from ftd.planning.plan import make_plan
from ftd.spec.experiment import SERVICE_KEYS, parse
from jobs.params.features import FeaturesParams
from jobs.params.probe import BackboneParams
from jobs.params.target import TargetParams

REFERENCE = (Path(__file__).parent.parent / "docs" / "spec.md").read_text()
BLOCKS = re.findall(r"```yaml\n(.*?)```", REFERENCE, flags=re.DOTALL)
FRAGMENTS = {found[1]: text for text in BLOCKS if (found := re.match(r"# (\S+\.yaml)\n", text))}
EXAMPLES = [text for text in BLOCKS if text not in FRAGMENTS.values()]

CELLS_AND_RUNS = {
    "solar-cells": (4, 12),
    "two-factors": (4, 4),
    "named-levels": (2, 2),
    "bundles": (2, 2),
    "all-but-two": (4, 4),
    "by-hand": (3, 3),
    "nested": (7, 7),
    "two-targets": (5, 5),
    "around-a-baseline": (6, 6),
    "fairly-compared": (2, 24),
    "equal-images": (3, 3),
    "subsets": (2, 30),
    "with-a-fragment": (4, 4),
    "is-pretraining-worth-it": (6, 18),
    "sources": (3, 9),
    "how-far": (3, 9),
    "which-layer-finds": (4, 12),
    "which-layer": (24, 72),
    "worth-growing": (3, 45),
    "worth-borrowing": (3, 45),
}


@pytest.mark.parametrize("text", EXAMPLES, ids=lambda text: text.split()[1])
def test_every_example_is_a_spec(text: str) -> None:
    """What people copy out of the reference works and has the cells they would expect."""
    spec = parse(text, "docs/spec.md", None, FRAGMENTS)
    plan = make_plan(spec, Path("/"), device_kind="cpu")
    assert (len(plan.cells), len(plan.runs)) == CELLS_AND_RUNS[plan.name]


def test_no_example_is_missing() -> None:
    """The examples above are all that the reference shows."""
    assert len(EXAMPLES) == len(CELLS_AND_RUNS)


def default_of(field: FieldInfo) -> str:
    """A parameter's default as the reference writes it."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "none"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


DESCRIBED_UNDER: dict[type[BaseModel], str] = {  # once for all jobs
    TargetParams: "target",
    FeaturesParams: "features",
    BackboneParams: "model and features",
}


def rows(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The table row of every parameter: its path, default and description.

    Parameters that have their rows under another name are a single row.
    """
    for name, field in model.model_fields.items():
        inner = models_in(field.annotation)
        described = [found for found in inner if DESCRIBED_UNDER.get(found, name) != name]
        if inner != [field.annotation] or described:  # a value, or one that may also be a mapping
            yield f"| `{prefix}{name}` | {default_of(field)} | {field.description} |"
        for found in inner:
            if found not in described:
                yield from rows(found, f"{prefix}{name}.")


@pytest.mark.parametrize("job", catalog.job_names())
def test_every_parameter_is_in_the_reference(job: str) -> None:
    """Each parameter has its row, with default and description as in the schema."""
    assert [row for row in rows(catalog.job(job).Params) if row not in REFERENCE] == []


def test_every_key_of_the_service_is_in_the_reference() -> None:
    """Each key has a row."""
    assert [key for key in SERVICE_KEYS if f"| `{key}` |" not in REFERENCE] == []
