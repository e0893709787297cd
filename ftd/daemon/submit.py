"""The one way in: everything a person can wish is a request, and `submit` carries it out.

A request is self-contained (text, absolute folder, options), so that the same bytes could arrive
from elsewhere.  What `submit` returns is committed.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ftd.daemon.wake import wake
from ftd.errors import InputError, SpecError
from ftd.layout import Home
from ftd.ledger import names, wishes
from ftd.ledger.db import Ledger, opened
from ftd.regular import full_path
from ftd.states import RunState, Wish

if TYPE_CHECKING:
    from ftd.ledger.enqueue import Enqueued
    from ftd.ledger.history import Estimate
    from ftd.planning.plan import Plan
    from ftd.spec.experiment import ExperimentSpec


MAX_PRIORITY = 1000  # as in a spec


@dataclass(frozen=True)
class EnqueueRequest:
    """Turn a spec into runs.

    `overrides` maps parameter paths to YAML text; `fragments` has the texts of the files that the
    spec includes, as :func:`ftd.spec.includes.fragments` reads them.
    """

    spec_text: str
    source: str
    base: str
    overrides: Mapping[str, str]
    priority: int | None = None
    fresh: bool = False
    fragments: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ChangeRequest:
    """Change what is wished of experiments (names, e7) and runs (r123)."""

    verb: Literal["cancel", "hold", "release", "retry", "prioritise"]
    targets: tuple[str, ...]
    why: str = ""
    priority: int = 0


def asking_user() -> str:
    """The login name of whoever runs this process."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid{os.getuid()}"


@dataclass(frozen=True)
class Preview:
    """What a request would do: its plan, what the ledger has of it, how long the rest may take."""

    plan: Plan
    known: Mapping[str, tuple[int, RunState]]  # key -> run id, state
    estimate: Estimate | None


def preview(home: Home, request: EnqueueRequest) -> Preview:
    """What :func:`submit` would do with a request.  Touches nothing; the home need not exist."""
    if not home.ledger.exists():
        return Preview(_plan(home, request, None), {}, None)
    from ftd.ledger.enqueue import known_runs
    from ftd.ledger.history import estimate

    with opened(home) as ledger:
        plan = _plan(home, request, ledger)
        known = known_runs(ledger, plan)
        return Preview(plan, known, estimate(ledger, plan, known))


def submit(
    home: Home, request: EnqueueRequest | ChangeRequest, who: str
) -> Enqueued | tuple[int, ...]:
    """Carry out a request for `who`; what became of it, or the ids of the runs touched.

    Raises InputError before anything is written when the request is wrong.
    """
    if abs(request.priority or 0) > MAX_PRIORITY:
        raise InputError(
            f"priority {request.priority} is out of range",
            fix=f"Take a whole number from -{MAX_PRIORITY} to {MAX_PRIORITY}",
        )
    if isinstance(request, ChangeRequest):
        return _change(home, request, who)
    return _enqueue(home, request, who)


def _enqueue(home: Home, request: EnqueueRequest, who: str) -> Enqueued:
    from ftd.daemon.queue import Queue
    from ftd.ledger.enqueue import write_plan
    from ftd.source import keep

    plan = None
    if not home.ledger.exists():
        plan = _plan(home, request, None)  # a wrong spec must not even make a home
    with opened(home, create=True) as ledger:
        if plan is None or _gpu_known(ledger):  # somebody else may just have made the home
            plan = _plan(home, request, ledger)
        if plan.job_file is not None:
            keep(home.sources, plan.job_file)
        enqueued = write_plan(
            ledger,
            plan,
            spec_text=request.spec_text,
            base=request.base,
            owner=who,
            priority=request.priority if request.priority is not None else plan.priority,
            announce=Queue(ledger).put,
            request={
                "source": request.source,
                "overrides": dict(request.overrides),
                "fragments": dict(request.fragments),
            },
        )
    wake(home.wake)
    return enqueued


def _change(home: Home, request: ChangeRequest, who: str) -> tuple[int, ...]:
    with opened(home) as ledger:
        members = names.memberships(ledger, list(request.targets))
        match request.verb:
            case "cancel":
                runs = wishes.wish(ledger, members, Wish.CANCEL, who=who, why=request.why)
            case "hold":
                runs = wishes.wish(ledger, members, Wish.HOLD, who=who, why=request.why)
            case "release":
                runs = wishes.release(ledger, members, who=who, why=request.why)
            case "retry":
                runs = wishes.retry(ledger, members, who=who, why=request.why)
            case "prioritise":
                runs = wishes.prioritise(ledger, members, request.priority, who=who)
    wake(home.wake)
    return tuple(runs)


def _plan(home: Home, request: EnqueueRequest, ledger: Ledger | None) -> Plan:
    """The plan of a request; without a `ledger`, as in a new home."""
    from ftd.ledger.producers import producers
    from ftd.planning.plan import make_plan
    from ftd.planning.producers import no_runs
    from ftd.spec.experiment import parse

    spec = parse(request.spec_text, request.source, request.overrides, request.fragments)
    _check_allowed(home, spec, Path(request.base))
    kind = spec.device
    if kind == "auto":
        gpu_known = ledger is not None and _gpu_known(ledger)
        kind = "gpu" if gpu_known or gpu_present() else "cpu"
    nonce = os.urandom(8).hex() if request.fresh else None
    named = no_runs if ledger is None else partial(producers, ledger)
    return make_plan(spec, Path(request.base), device_kind=kind, fresh_nonce=nonce, producers=named)


def _check_allowed(home: Home, spec: ExperimentSpec, base: Path) -> None:
    """Raise SpecError for an interpreter that ``ftd.toml`` does not allow."""
    if spec.python is None:
        return
    from ftd.config import load

    python = str(full_path(spec.python, base))
    config = load(home)
    if not config.jobs.allows(python):
        allowed = ", ".join(config.jobs.interpreters) or "none"
        raise SpecError(
            f"the interpreter {python} is not allowed here",
            where=spec.document.where(("python",)),
            fix=f"Allowed in ftd.toml, [jobs] interpreters: {allowed}",
        )


def gpu_present() -> bool:
    """Whether this machine has an NVIDIA GPU, without asking its driver."""
    return Path("/dev/nvidiactl").exists() or any(Path("/proc/driver/nvidia/gpus").glob("*"))


def _gpu_known(ledger: Ledger) -> bool:
    """Whether this home ever had a GPU: one that is away must not turn runs into CPU runs."""
    from ftd.ledger.inventory import devices

    return any(device.kind == "gpu" for device in devices(ledger))
