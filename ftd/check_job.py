"""Whether a job keeps its contract: the test that the author of a job runs.

    from ftd.check_job import check_job

    def test_soup_keeps_the_contract():
        check_job("./soup.py:Soup", {"steps": 6}, base=Path(__file__).parent)

Everything happens as it would under a daemon: another process answers for the job's parameters, and
workers execute its runs, on the CPU.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ftd import source
from ftd.errors import ContractError, InputError, SpecError
from ftd.planning.plan import Plan, make_plan
from ftd.spec.experiment import ExperimentSpec, parse
from ftd.trials.attempts import Facts
from ftd.trials.interruptions import Runs, spread

BY_CLOCK = ("command",)  # jobs whose places to leave depend on the time

TIMEOUT_S = 600.0
NUM_PLACES, NUM_ENTRIES = 4, 12  # enough to find what is wrong, few enough to wait for

Told = Callable[[str], None]


@dataclass(frozen=True)
class Checked:
    """What was checked of a job that keeps its contract, a line each."""

    job: str
    lines: tuple[str, ...]


def check_job(
    job: str,
    params: Mapping[str, Any] | None = None,
    *,
    base: Path | None = None,
    num_places: int = NUM_PLACES,
    num_entries: int = NUM_ENTRIES,
    timeout_s: float = TIMEOUT_S,
) -> Checked:
    """Check `job`, named as in a spec, with `params`; paths start at `base` (default: here).

    Of the run's places to leave, up to `num_places` are tried, and of the entries of its
    checkpoints up to `num_entries`.  Raises InputError for code or parameters that cannot be
    planned, ContractError for a run that fails, takes longer than `timeout_s`, or depends on
    anything but its parameters, seeds and checkpoint.
    """
    text = json.dumps(dict(params or {}))
    return check_spec(
        text,
        "params",
        job,
        base=base or Path.cwd(),
        num_places=num_places,
        num_entries=num_entries,
        timeout_s=timeout_s,
    )


def check_spec(
    text: str,
    origin: str,
    job: str,
    *,
    base: Path,
    fragments: Mapping[str, str] | None = None,
    num_places: int = NUM_PLACES,
    num_entries: int = NUM_ENTRIES,
    timeout_s: float = TIMEOUT_S,
    told: Told = lambda line: None,
) -> Checked:
    """As :func:`check_job`, with the parameters in the YAML `text` of `origin`.

    That may be a whole spec: its first run is taken, and `job` stands for the spec's; `fragments`
    are the texts of the files it includes.  `told` is called with each line as soon as it is known.
    """
    lines: list[str] = []

    def tell(line: str) -> None:
        lines.append(line)
        told(line)

    overrides = {"experiment": "check-job", "job": json.dumps(job)}
    spec = parse(text, origin, overrides, fragments)
    plan = _planned(spec, base)
    _check_planning(plan, _planned(spec, base))
    tell("planned twice, it is the same run; no heavy library is imported for that")
    run = plan.runs[0]
    if run.job in BY_CLOCK:
        raise InputError(
            f"'{run.job}' cannot be checked: a program is asked to leave whenever it is time, so "
            "no two runs of it can be left at the same places",
            fix="Check a job in Python; see docs/jobs.md for what a program has to keep to",
        )
    with TemporaryDirectory(prefix="ftd-check-") as folder:
        runs = Runs(run, Path(folder), timeout_s)
        if plan.job_file is not None:
            source.keep(Path(folder) / "jobs", plan.job_file)
        whole = runs.whole()
        _check_metric(plan.primary_metric, whole.facts)
        tell(f"run twice, it ends alike: {_summed_up(whole.facts)}")
        if not whole.places:
            tell("it never calls context.checkpoint: a stop or a kill loses all of its work")
            return Checked(run.job, tuple(lines))
        chosen = spread(len(whole.places), num_places)
        number = runs.interrupt(whole, chosen)
        tell(f"interrupted in {number} ways, it ends alike: {_places(chosen, whole.places)}")
        tell(runs.check_entries(whole, chosen, num_entries))
    return Checked(run.job, tuple(lines))


def _planned(spec: ExperimentSpec, base: Path) -> Plan:
    try:
        return make_plan(spec, base, device_kind="cpu")
    except SpecError as error:
        if error.where != "--set job":
            raise
        raise InputError(error.what, fix=error.fix) from error  # nobody set it


def _check_planning(one: Plan, other: Plan) -> None:
    ours, theirs = one.runs[0], other.runs[0]
    for name in ("job_version", "params", "inputs", "key"):
        if getattr(ours, name) != getattr(theirs, name):
            cause = {"params": "resolve()", "inputs": "inputs()"}.get(name, "identity()")
            raise ContractError(
                f"planned twice, it is not the same run: {name} differ. Let {cause} depend on "
                "parameters and folder alone"
            )


def _check_metric(name: str, facts: Facts) -> None:
    metrics = facts.result.metrics
    if name and name not in metrics:
        had = f"those are {', '.join(sorted(metrics))}" if metrics else "there are none"
        raise ContractError(
            f"its primary metric {name} is not among the metrics of its end ({had})"
        )


def _summed_up(facts: Facts) -> str:
    parts = [f"{len(facts.rows)} metric rows", f"{len(facts.artifacts)} artifacts"]
    return f"{', '.join(parts)}, state {(facts.result.state_sha256 or '')[:12]}"


def _places(chosen: Sequence[int], places: Sequence[int]) -> str:
    return f"left at {', '.join(map(str, chosen))} of {len(places)} places"
