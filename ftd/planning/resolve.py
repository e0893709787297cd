"""One cell of a spec, validated and resolved: the question that its runs answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path, PurePath
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ftd.document import KeyPath, shown
from ftd.errors import InputError, SpecError
from ftd.explain import Complaint, explain, parameter_paths, unknown_key
from ftd.inputs import fingerprint
from ftd.job import Input, Params
from ftd.planning import described
from ftd.planning.described import DescribedJob, Refusal
from ftd.planning.producers import Producer, Producers, picked
from ftd.regular import full_path
from ftd.spec import origin
from ftd.spec.design import Cell
from ftd.spec.experiment import SERVICE_KEYS, Execution, ExperimentSpec
from ftd.spec.levels import Label
from ftd.spec.yamltext import MAX_DEPTH

Factors = Mapping[str, Label]

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Question:
    """All of a run that does not depend on the replicate."""

    factors: Factors
    params: Mapping[str, Any]  # resolved, JSON values
    identity: Mapping[str, Any]  # what of them determines the result
    execution: Execution
    # name -> {kind, where, fingerprint}, and the run where that is its kind: for all units of
    # replicates, or for each of them
    inputs: tuple[Mapping[str, Mapping[str, str]], ...]
    primary_metric: str
    labels_used: str  # for people


class Resolver:
    """Turns the cells of one spec into questions; each input is fingerprinted once.

    `producers` gives the run that people call so, or those of the experiment.
    """

    def __init__(
        self, spec: ExperimentSpec, base: Path, producers: Producers, num_units: int
    ) -> None:
        self._spec = spec
        self._base = base
        self._producers = producers
        self._num_units = num_units
        try:
            python = str(full_path(spec.python, base)) if spec.python is not None else None
            self.job = described.find(spec.job, base, python, also=SERVICE_KEYS)
        except InputError as error:
            what = f"{error.where}: {error.what}" if error.where else error.what
            raise SpecError(what, where=spec.document.where(("job",)), fix=error.fix) from error
        self._execution = {name: getattr(spec, name) for name in Execution.model_fields}
        self._declared = {*spec.factors, *(spec.tune.over if spec.tune else ())}
        self._varying: set[str] = set()  # paths that have been checked
        self._fingerprints: dict[Input, str] = {}
        self._named: dict[str, tuple[Producer, ...]] = {}
        self._runs: dict[Input, tuple[Producer, ...]] = {}
        self._levels_shown: dict[tuple[str, KeyPath, str], KeyPath] = {}

    def question(self, cell: Cell) -> Question:
        """Validate and resolve one cell.  Raises SpecError saying where and what is allowed."""
        raw, raw_execution = dict(self._spec.params), dict(self._execution)
        for path, value in cell.assignments.items():
            if path not in self._varying:
                self._check_varies(path, cell)
                self._varying.add(path)
            self._assign(raw_execution if path in raw_execution else raw, path, value, cell)
        try:
            params = self._validated(self.job.Params, self._budgeted(raw, cell), cell)
            execution = self._validated(Execution, raw_execution, cell)
            resolved = self.job.resolve(params, self._base)
            return Question(
                factors=self._factors(cell, params, execution),
                params=resolved.model_dump(mode="json"),
                identity=self.job.identity(resolved),
                execution=execution,
                inputs=self._inputs(resolved),
                primary_metric=self.job.primary_metric(resolved),
                labels_used=self.job.labels_used(resolved),
            )
        except SpecError:
            raise
        except InputError as error:
            raise self._refusal(error, raw, cell) from error

    def _check_varies(self, path: str, cell: Cell) -> None:
        """Raise SpecError for what no factor can set (below a known key, validation tells)."""
        root, *below = path.split(".")
        if path in self._execution or root in self.job.Params.model_fields:
            if len(below) < MAX_DEPTH:
                return
            what, fix = "the path is too long", ""
        elif root in SERVICE_KEYS:
            what = f"'{path}' belongs to the whole experiment and cannot vary inside it"
            fix = "Write one spec for each value"
        else:
            what = f"'{path}' is no parameter of job {self._spec.job}"
            fix = unknown_key((path,), self.job.Params, also=tuple(self._execution))
            if path in cell.chosen:
                fix += ". A factor of another name has levels like {name: WORD, set: {PATH: VALUE}}"
        raise SpecError(what, where=self._where(cell, tuple(path.split("."))), fix=fix)

    def _assign(self, raw: dict[str, Any], path: str, value: Any, cell: Cell) -> None:
        """Set a dotted path, copying the mappings on the way (they are shared between cells)."""
        *parents, last = path.split(".")
        for part in parents:
            inner = raw.get(part)
            if inner is not None and not isinstance(inner, dict):
                raise SpecError(
                    f"there is no key '{last}' below {part}: {shown(inner)}",
                    where=self._where(cell, tuple(path.split("."))),
                )
            copy = dict(inner or {})
            raw[part] = copy
            raw = copy
        raw[last] = value

    def _budgeted(self, raw: dict[str, Any], cell: Cell) -> dict[str, Any]:
        """The parameters with what the spec's budget means for the job."""
        if self._spec.budget is None:
            return raw
        try:
            return dict(self.job.with_budget(raw, self._spec.budget))
        except ValidationError as error:
            raise self._invalid(error, self.job.Params, raw, cell) from error

    def _validated(self, model: type[M], raw: dict[str, Any], cell: Cell) -> M:
        try:
            return model.model_validate(raw)
        except ValidationError as error:
            raise self._invalid(error, model, raw, cell) from error

    def _invalid(
        self, error: ValidationError, model: type[BaseModel], raw: dict[str, Any], cell: Cell
    ) -> SpecError:
        return self._complained(explain(error, raw, model, also=SERVICE_KEYS), cell)

    def _complained(self, complaint: Complaint | Refusal, cell: Cell) -> SpecError:
        place = self._where(cell, complaint.path, below=not complaint.whole)
        in_cell = _in_cell(cell) if complaint.whole else ""
        return SpecError(complaint.what + in_cell, where=place, fix=complaint.fix)

    def _factors(self, cell: Cell, params: Params, execution: Execution) -> dict[str, Label]:
        """Every level as shown to people: its name, or its value after validation."""
        shown_as: dict[str, Label] = {}
        for factor, level in cell.chosen.items():
            label = level.label
            if not level.named:
                source = execution if factor in self._execution else params
                label = _as_label(_value_at(source, factor), label)
            listed = (factor, level.listed_at, repr(label))
            first = self._levels_shown.setdefault(listed, level.at)
            if first != level.at and factor in self._declared:
                raise SpecError(
                    f"this level is the same as another one: {shown(label)}",
                    where=self._spec.document.where(level.at),
                    fix="Keep one of them",
                )
            shown_as[factor] = label
        return shown_as

    def _inputs(self, params: Params) -> tuple[dict[str, dict[str, str]], ...]:
        common: dict[str, dict[str, str]] = {**self.own.code} if self.own else {}
        read: list[tuple[str, Input, tuple[Producer, ...]]] = []
        for name, item in self.job.inputs(params).items():
            if item.kind == "run":
                read.append((name, item, self._read_runs(item)))
                continue
            known = self._fingerprints.get(item)
            if known is None:
                known = self._fingerprints[item] = fingerprint(item)
            common[name] = {"kind": item.kind, "where": item.where, "fingerprint": known}
        return tuple(
            common
            | {
                name: _kept_by(item, found[unit] if len(found) > 1 else found[0])
                for name, item, found in read
            }
            for unit in range(max((len(found) for *_, found in read), default=1))
        )

    def _read_runs(self, item: Input) -> tuple[Producer, ...]:
        """The one run that `item` means, or as many as there are units."""
        found = self._runs.get(item)
        if found is None:
            if item.where not in self._named:
                self._named[item.where] = self._producers(item.where)
            found = picked(item, self._named[item.where])
            if 1 < len(found) < self._num_units:
                raise InputError(
                    f"experiment '{item.where}' has {len(found)} replicates, this one "
                    f"{self._num_units}",
                    fix="Give it more replicates first, or this one fewer",
                )
            found = self._runs[item] = found[: self._num_units]
        return found

    @property
    def job_name(self) -> str:
        """What the job is called in runs."""
        return self.own.name if self.own else self._spec.job

    @property
    def own(self) -> DescribedJob | None:
        """The job, if it is not built in."""
        return self.job if isinstance(self.job, DescribedJob) else None

    def _refusal(self, error: InputError, raw: Mapping[str, Any], cell: Cell) -> SpecError:
        """What a job refuses, with the place of the parameter it names or whose value it quotes."""
        if isinstance(error, Refusal):
            return self._complained(error, cell)
        path = origin.quoted(error.what, raw, self._base)
        if error.where == "budget" or error.where in parameter_paths(self.job.Params):
            path = tuple(error.where.split("."))
        what = error.what
        if path is None:
            within = f"{error.where}: " if error.where else ""  # of another file, or of a list
            what = f"{within}{what}{_in_cell(cell)}"
        return SpecError(what, where=self._where(cell, path or (), below=False), fix=error.fix)

    def _where(self, cell: Cell, path: KeyPath, *, below: bool = True) -> str:
        return origin.where(self._spec.document, cell, path, below=below)


def _value_at(params: object, path: str) -> object:
    """The value at a dotted path of validated parameters."""
    value = params
    for part in path.split("."):
        value = value[part] if isinstance(value, dict) else getattr(value, part)
    return value


def _as_label(typed: object, written: Label) -> Label:
    """A validated value as people see it; for a composite one, what they wrote."""
    if isinstance(typed, Enum):
        typed = typed.value
    if isinstance(typed, PurePath):
        return str(typed)
    return typed if typed is None or isinstance(typed, str | int | float) else written


def _kept_by(item: Input, producer: Producer) -> dict[str, str]:
    found = {"kind": "run", "where": item.called, "run": producer.run, "fingerprint": producer.key}
    return found | ({"file": item.file} if item.file else {})


def _in_cell(cell: Cell) -> str:
    told = ", ".join(f"{factor}={shown(label)}" for factor, label in cell.levels.items())
    return f" (in the cell {told})" if told else ""
