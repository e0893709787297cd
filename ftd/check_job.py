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
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ftd import source
from ftd.clock import monotonic
from ftd.entries import LEFT_OUT, WAYS, Entry, altered, contents_of, entries_in
from ftd.errors import ContractError, InputError, SpecError
from ftd.plan import Plan, PlannedRun, make_plan
from ftd.spec import ExperimentSpec, parse
from ftd.states import Outcome
from ftd.trials import Ended, Facts, Trial, completed
from ftd.worker.trial import END

TIMEOUT_S = 600.0
NUM_PLACES, NUM_ENTRIES = 4, 12  # enough to find what is wrong, few enough to wait for
KILLED_SAVES_EVERY = 2  # steps: so that a killed attempt has done more than it saved

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
    with TemporaryDirectory(prefix="ftd-check-") as folder:
        runs = _Runs(run, Path(folder), timeout_s)
        if plan.job_file is not None:
            source.keep(Path(folder) / "jobs", plan.job_file)
        whole = runs.whole()
        _check_metric(plan.primary_metric, whole.facts)
        tell(f"run twice, it ends alike: {_summed_up(whole.facts)}")
        if not whole.places:
            tell("it never calls context.checkpoint: a stop or a kill loses all of its work")
            return Checked(run.job, tuple(lines))
        chosen = _spread(len(whole.places), num_places)
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


@dataclass(frozen=True)
class _Whole:
    """A run that nothing interrupted, and the steps done at its places to leave."""

    facts: Facts
    places: Sequence[int]
    took_s: float


class _Runs:
    """Runs of one question in one folder; they share a store, as in a home."""

    def __init__(self, run: PlannedRun, folder: Path, timeout_s: float) -> None:
        self._run = run
        self._folder = folder
        self._timeout_s = timeout_s
        self._number = 0

    def new(self) -> Trial:
        """A run of which there is no attempt yet."""
        self._number += 1
        return Trial(self._run, self._folder / f"run-{self._number}", self._folder, self._timeout_s)

    def whole(self) -> _Whole:
        """Two runs that nothing interrupts: they have to end alike."""
        began = monotonic()
        first, again = self.new(), self.new()
        ended = first.attempt()
        _require_completed(ended, "run as it is")
        took_s = monotonic() - began
        facts = first.facts(ended)
        twin = again.attempt()
        _require_completed(twin, "run once more")
        _require_equal(facts, again.facts(twin), "run twice")
        if twin.places != ended.places:
            raise ContractError("run twice, it calls context.checkpoint at other steps")
        return _Whole(facts, ended.places, took_s)

    def interrupt(self, whole: _Whole, places: Sequence[int]) -> int:
        """Interrupt a run in several ways, each of which must end as the `whole` one.

        Returns how many ways there are.
        """
        middle = places[len(places) // 2]
        ways = [
            *([f"stop@{place}"] for place in places),
            *([f"kill@{place}"] for place in sorted({middle, places[-1]})),
            [f"stop@{middle}", "kill@1", "stop@1"],
        ]
        for way in ways:
            self._interrupted(whole, way)
        return len(ways)

    def _interrupted(self, whole: _Whole, way: Sequence[str]) -> None:
        trial = self.new()
        how = f"interrupted by {', '.join(way)}"
        for number, end in enumerate([*way, END]):
            kills = any(one.startswith("kill") for one in way)
            ended = trial.attempt(end, every_steps=KILLED_SAVES_EVERY if kills else None)
            if number:
                _check_resumed(ended, how)
            if completed(ended) and (number or end == END):
                break
            if end.startswith("stop"):
                _require_stopped(ended, end)
            elif end == END:
                _require_completed(ended, how)
        _require_equal(whole.facts, trial.facts(ended), how)

    def left_at(self, place: int) -> Trial:
        """A run that was asked to leave at a place."""
        trial = self.new()
        _require_stopped(trial.attempt(f"stop@{place}"), f"stop@{place}")
        return trial

    def check_entries(self, whole: _Whole, places: Sequence[int], num_entries: int) -> str:
        """Each entry of its checkpoints has to matter at one of these places, or at the first.

        Returns what to tell.
        """
        middle = len(places) // 2
        tried_at = dict.fromkeys((*places[middle:], *places[:middle], 1))
        left = [self.left_at(place) for place in tried_at]
        found = {entry: None for one in left for entry in entries_in(contents_of(one.checkpoint))}
        if not found:
            raise ContractError("its checkpoints are empty: nothing to go on from")
        tried = [list(found)[index - 1] for index in _spread(len(found), num_entries)]
        for entry in tried:
            for how in WAYS:
                if how == LEFT_OUT and entry.keys and isinstance(entry.keys[-1], int):
                    continue  # a shorter list may be what was saved a step before
                if not any(self._matters(whole, one, entry, how) for one in left):
                    raise ContractError(
                        f"it makes no difference when {entry} in its checkpoints is {how}: leave "
                        "it out, or use it"
                    )
        of = f" ({len(tried)} of {len(found)} were tried)" if len(tried) < len(found) else ""
        return f"each entry of its checkpoints matters: {_listed(tried)}{of}"

    def _matters(self, whole: _Whole, left: Trial, entry: Entry, how: str) -> bool:
        """Whether a run fails or ends differently when `entry` is altered before it is resumed."""
        contents = contents_of(left.checkpoint)
        if entry not in entries_in(contents):
            return False  # a checkpoint of another place holds it
        patience_s = max(10.0, 5 * whole.took_s)
        for changed in altered(contents, entry, how):
            with left.with_checkpoint(changed, patience_s) as copy:
                with suppress(ContractError):  # it hangs, or says other metrics
                    ended = copy.attempt()
                    if completed(ended) and not whole.facts.difference(copy.facts(ended)):
                        continue
                return True
        return False


def _require_completed(ended: Ended, how: str) -> None:
    if not completed(ended):
        raise ContractError(f"{how}, it does not come to its end: {_why(ended)}")


def _require_stopped(ended: Ended, end: str) -> None:
    place = end.partition("@")[2]
    if completed(ended):
        raise ContractError(
            f"asked to leave at its place {place}, it goes on to its end: let Stopped, which "
            "context.checkpoint raises, pass"
        )
    if ended.result is None or ended.result.outcome != Outcome.STOPPED:
        raise ContractError(f"asked to leave at its place {place}, it fails: {_why(ended)}")


def _check_resumed(ended: Ended, how: str) -> None:
    if ended.resumed_from is None and completed(ended):
        raise ContractError(f"{how}, it begins again: call context.restore() and go on from there")


def _require_equal(whole: Facts, other: Facts, how: str) -> None:
    difference = whole.difference(other)
    if difference:
        raise ContractError(f"{how}, it ends differently: {difference}")


def _why(ended: Ended) -> str:
    if ended.result is None:
        return f"its process ended; it last printed: {ended.last_lines}"
    return ended.result.error or ended.result.why or ended.result.outcome


def _spread(number: int, wanted: int) -> list[int]:
    """Up to `wanted` of the numbers 1 ... `number`, the first and the last among them."""
    if number <= wanted:
        return list(range(1, number + 1))
    if wanted < 2:
        return [(number + 1) // 2] * wanted
    return [1 + round(i * (number - 1) / (wanted - 1)) for i in range(wanted)]


def _summed_up(facts: Facts) -> str:
    parts = [f"{len(facts.rows)} metric rows", f"{len(facts.artifacts)} artifacts"]
    return f"{', '.join(parts)}, state {(facts.result.state_sha256 or '')[:12]}"


def _places(chosen: Sequence[int], places: Sequence[int]) -> str:
    return f"left at {', '.join(map(str, chosen))} of {len(places)} places"


def _listed(entries: Sequence[Entry]) -> str:
    shown = [str(entry) for entry in entries[:6]]
    return ", ".join(shown) + (f" and {len(entries) - 6} more" if len(entries) > 6 else "")
