"""What people write: a spec's text becomes an ExperimentSpec, or one error that says where and why.

The service's own keys are the fields of :class:`ExperimentSpec`; every other top-level key is a
parameter of the job and is checked, cell by cell, when the plan is made.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PrivateAttr,
    Tag,
    ValidationError,
    field_validator,
)

from ftd.document import Document, shown
from ftd.errors import SpecError
from ftd.explain import explain
from ftd.job import Budget
from ftd.spec import includes, yamltext
from ftd.spec.declared import Assignments, ConditionalFactor, FactorDeclaration, Levels, Tune

MAX_REPLICATES = 10_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ID = re.compile(r"[er]?[0-9]+", re.IGNORECASE)

Stream = Literal[
    "split", "classes", "subset", "init", "order", "augment", "dropout", "source", "train"
]
Count = Annotated[int, Field(ge=1, le=MAX_REPLICATES)]
CountsByStream = Annotated[dict[Stream, Count], Field(min_length=1)]


def _number_or_mapping(value: object) -> str:
    return "by stream" if isinstance(value, dict) else "of all"


class Limits(BaseModel):
    """What a run may use before it is stopped."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    time_s: float | None = Field(None, gt=0, description="Seconds a run may compute, in all.")


class Execution(BaseModel):
    """How a run computes, whatever its job; part of what determines its numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    numerics: Literal["exact", "fast"] = Field(
        "exact", description="exact: deterministic algorithms, resumed bit for bit. fast: any."
    )
    threads: int = Field(1, ge=1, le=1024, description="CPU threads of a run.")


class ExperimentSpec(Execution):
    """A spec: the service's keys as fields, the job's parameters in ``params``."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    experiment: str = Field(description="The experiment's name: letters, digits, . _ - (up to 64).")
    job: str = Field(description="The kind of work.")
    description: str = Field("", description="What is asked, in your words.")
    include: list[str] = Field(
        default_factory=list, description="Files whose keys count where this spec has none."
    )
    factors: dict[str, FactorDeclaration] = Field(
        default_factory=dict, description="Varied parameters: path or name -> levels."
    )
    cells: list[Assignments] | None = Field(
        None, min_length=1, description="Explicit cells instead of every combination of levels."
    )
    exclude: list[Assignments] = Field(
        default_factory=list, description="Combinations to leave out: factor -> level."
    )
    baseline: Assignments | None = Field(
        None, description="One factor at a time: this cell, and each other level alone in it."
    )
    tune: Tune | None = Field(
        None, description="Parameters that are chosen inside each cell on validation images."
    )
    budget: Budget | None = Field(None, description="How long every run trains.")
    replicates: Annotated[
        Annotated[Count, Tag("of all")] | Annotated[CountsByStream, Tag("by stream")],
        Discriminator(_number_or_mapping),
    ] = Field(1, description="How often each cell runs, with other seeds.")
    seed: int = Field(0, ge=0, description="The number all seeds are derived from.")
    seeds: dict[Stream, Annotated[int, Field(ge=0)]] = Field(
        default_factory=dict, description="Streams whose seed is the same in every replicate."
    )
    python: str | None = Field(
        None, description="Interpreter that executes the runs; ftd.toml must allow it."
    )
    device: Literal["auto", "gpu", "cpu"] = Field(
        "auto", description="auto: a GPU on a machine that has one, else the CPU."
    )
    priority: int = Field(0, ge=-1000, le=1000, description="Higher runs first.")
    limits: Limits = Field(Limits(), description="What a run may use.")

    _document: Document = PrivateAttr()

    @field_validator("experiment")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError(
                f"'{shown(value)}' is no name: take up to 64 letters, digits, '.', '_', "
                "'-', beginning with a letter or digit"
            )
        if _ID.fullmatch(value):
            raise ValueError(f"'{value}' looks like an id, take another name")
        return value

    @property
    def params(self) -> Mapping[str, Any]:
        """The job's parameters as written, before factors; plain values."""
        return self.model_extra or {}

    @property
    def document(self) -> Document:
        """The text it was read from, for saying where something stands."""
        return self._document


SERVICE_KEYS = tuple(ExperimentSpec.model_fields)


def parse(
    text: str,
    source: str,
    overrides: Mapping[str, str] | None = None,
    fragments: Mapping[str, str] | None = None,
) -> ExperimentSpec:
    """Read a spec; `source` names it in errors, `overrides` are ``--set`` values by path.

    `fragments` are the texts of the files it includes, as :func:`ftd.spec.includes.fragments` reads
    them.  Raises SpecError naming source, line and key, what is allowed and the closest match.  The
    job's own parameters are checked by :func:`ftd.planning.plan.make_plan`.
    """
    document = includes.merged(text, source, fragments or {})
    for path, value in (overrides or {}).items():
        document = _overridden(document, path, value)
    data = document.plain()
    try:
        spec = ExperimentSpec.model_validate(data)
    except ValidationError as error:
        complaint = explain(error, data, ExperimentSpec)
        raise SpecError(
            complaint.what, where=document.where(complaint.path), fix=complaint.fix
        ) from error
    spec._document = document
    for path in overrides or {}:
        _check_counts(spec, path)
    return spec


def _overridden(document: Document, path: str, value: str) -> Document:
    source = f"--set {path}"
    node = yamltext.read(value, source, lined=False).root
    # a factor's name may itself be a dotted path
    parts = path.split(".", 1) if path.startswith("factors.") else path.split(".")
    if parts[0] == "include":
        raise SpecError(
            "files are included before anything is set", where=source, fix="Write it in the spec"
        )
    if not all(parts) or len(parts) > yamltext.MAX_DEPTH:
        raise SpecError("not a key path", where=source, fix="Write --set some.key=value")
    return document.with_value(parts, node)


def _check_counts(spec: ExperimentSpec, override: str) -> None:
    """Raise SpecError when every cell sets the path of an override otherwise."""
    tuned = spec.tune.over if spec.tune else {}
    varied = {name: ("a factor", f"factors.{name}", [value]) for cell in spec.cells or ()
              for name, value in cell.items()}  # fmt: skip
    for name, declared in spec.factors.items():
        # one that is not in every cell leaves the others to the override
        conditional = isinstance(declared, ConditionalFactor) and declared.when
        levels = [] if conditional else _levels_of(declared)
        varied[name] = ("a factor", f"factors.{name}", levels)
    varied |= {name: ("tuned", f"tune.over.{name}", levels) for name, levels in tuned.items()}
    for name, (what, path, levels) in varied.items():
        bundles = any(isinstance(level, dict) and "set" in level for level in levels)
        if levels and not bundles and (override == name or override.startswith(f"{name}.")):
            raise SpecError(
                f"{name} is {what}, so this value would count nowhere",
                where=f"--set {override}",
                fix=f"Set its levels: --set '{path}=[...]'",
            )


def _levels_of(declared: Levels | ConditionalFactor) -> Levels:
    """Every level that is written for a factor, wherever it exists."""
    if not isinstance(declared, ConditionalFactor):
        return declared
    if isinstance(declared.levels, dict):
        return [level for levels in declared.levels.values() for level in levels]
    return declared.levels
