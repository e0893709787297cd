"""One attempt, from its order to its sealed result."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path

from ftd import catalog, faults
from ftd.diskspace import is_storage_trouble
from ftd.environment import environment
from ftd.errors import DataError, InputError, StorageError
from ftd.files import read_json, seal_json, try_lock
from ftd.gpus import NvmlUnavailable, read_gpus, strangers
from ftd.inputs import fingerprint
from ftd.job import Completed, Input, Stopped
from ftd.printable import printable
from ftd.process import own_identity
from ftd.protocol import (
    EXIT_FENCED,
    EXIT_STOPPED,
    EXIT_STORAGE,
    HEARTBEAT,
    ORDER,
    RESULT,
    REVOKED,
    WORKER,
    Order,
    Result,
)
from ftd.states import Outcome
from ftd.worker.context import AttemptContext


def main(directory: Path) -> int:
    """Execute the attempt ordered in `directory`; the process's exit status.

    That of :func:`attempt`, 3 when fenced off before the first write, 2 when the order is damaged.
    """
    try:
        order = Order.from_json(read_json(directory / ORDER) or {})
    except ValueError as error:
        _say(f"{directory / ORDER}: {error}")
        return InputError.exit_code
    faults.point("worker.started")
    lock = try_lock(directory.parent.parent / "lock")  # held until this process dies
    if lock is None or (directory / REVOKED).exists() or (directory / RESULT).exists():
        return EXIT_FENCED
    faults.point("worker.locked")
    return attempt(directory, order)


def attempt(directory: Path, order: Order) -> int:
    """Execute `order`, the run's lock being held; the process's exit status.

    0 when a result was sealed, 75 when asked to leave, 74 when the disk would not take what had to
    be written (the last checkpoint counts).
    """
    seal_json(directory / WORKER, own_identity().as_json())
    (directory / HEARTBEAT).touch()

    context = AttemptContext(directory, order)
    signal.signal(signal.SIGTERM, lambda *_: context.signalled())
    try:
        return _conclude(directory, _execute(order, context), context)
    except (StorageError, OSError) as error:
        if not is_storage_trouble(error) and not isinstance(error, StorageError):
            raise
        _say(f"cannot write: {error}")
        return EXIT_STORAGE


def _conclude(directory: Path, result: Result, context: AttemptContext) -> int:
    """Seal the result; the exit status that goes with it."""
    final = Result(
        **{
            **result.as_json(),
            "outcome": result.outcome,
            "artifacts": context.artifacts,
            "events_offset": context.close(),
        }
    )
    seal_json(directory / RESULT, final.as_json())
    return EXIT_STOPPED if result.outcome == Outcome.STOPPED else 0


def _execute(order: Order, context: AttemptContext) -> Result:
    """Run the job; whatever it raises becomes an outcome (the traceback goes to the log)."""
    try:
        return _completed(_run(order, context))
    except Stopped as stop:
        return Result(Outcome.STOPPED, why=str(stop))
    except InputError as error:
        _say(f"refused: {error}")
        return Result(Outcome.REFUSED, error=printable(str(error)))
    except Exception as error:  # a job may raise anything; the attempt must still end well
        if is_storage_trouble(error):
            raise StorageError(_one_line(error)) from error
        _say(traceback.format_exc())
        memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
        outcome = Outcome.OUT_OF_MEMORY if memory else Outcome.FAILED
        return Result(outcome, error=_one_line(error))


def _completed(completed: Completed) -> Result:
    return Result(
        Outcome.COMPLETED,
        num_steps=completed.num_steps,
        metrics=dict(completed.metrics),
        state_sha256=completed.state_sha256,
        flags=completed.flags,
    )


def _run(order: Order, context: AttemptContext) -> Completed:
    job = catalog.job(order.job)
    if job.version != order.job_version:
        raise InputError(
            f"job {order.job} is now version {job.version}; this run was planned for version "
            f"{order.job_version}",
            fix="Enqueue the spec again",
        )
    context.note("environment", **environment())
    if order.device_kind == "gpu":
        _check_alone(order.device_id)
    for name, planned in order.inputs.items():
        found = fingerprint(Input(planned["kind"], planned["where"]))  # type: ignore[arg-type]
        if found != planned["fingerprint"]:
            raise DataError(
                f"{name} ({planned['where']}) changed since the run was planned",
                fix="Restore it, or enqueue the spec again to run on what is there now",
            )
    return job.run(job.Params.model_validate(order.params), context)


def _check_alone(uuid: str) -> None:
    """Look at the GPU once more before the first touch.

    Raises Stopped when somebody else uses it, or when that cannot be known: the run is queued
    again and waits for a device that is free.
    """
    try:
        gpus = {gpu.uuid: gpu for gpu in read_gpus()}
    except NvmlUnavailable as error:
        raise Stopped(str(error)) from error
    others = strangers(gpus[uuid], [os.getsid(0)]) if uuid in gpus else None
    if others is None or others:
        raise Stopped(f"{uuid} is used by somebody else" if others else f"{uuid} is not there")


def _say(text: str) -> None:
    """Write to the log, if the disk still takes it."""
    with suppress(OSError):
        print(text, file=sys.stderr)


def _one_line(error: Exception) -> str:
    text = " ".join(printable(str(error)).split())
    return f"{type(error).__name__}: {text}"[:500]
