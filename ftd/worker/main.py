"""One attempt, from its order to its sealed result."""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ftd import catalog, faults
from ftd.diskspace import is_storage_trouble, shortage
from ftd.environment import environment
from ftd.errors import DataNotThere, InputError, StorageError
from ftd.files import read_json, seal_json
from ftd.gpus import NvmlUnavailable, read_gpus, strangers
from ftd.inputs import require_there, verify
from ftd.job import Completed, Input, Job, Stopped
from ftd.printable import printable
from ftd.process import own_identity
from ftd.protocol import (
    CANNOT_WRITE,
    EXIT_FENCED,
    EXIT_STOPPED,
    EXIT_STORAGE,
    HEARTBEAT,
    ORDER,
    RESULT,
    REVOKED,
    WAITS_FOR_DATA,
    WORKER,
    Order,
    Result,
)
from ftd.source import CODE, SOURCE, planned_job, verify_interpreter
from ftd.spare import drop_abandoned
from ftd.states import Outcome
from ftd.worker.context import AttemptContext
from ftd.worker.log import say
from ftd.worker.turns import Process, Turns


def main(
    directory: Path,
    make_context: Callable[[Path, Order], AttemptContext] = AttemptContext,
    channel: socket.socket | None = None,
) -> int:
    """Execute the attempt ordered in `directory`, then those that `channel` brings.

    The process's exit status, that of the last one: as :func:`attempt` says, 3 when fenced off
    before the first write, 2 when the order is damaged, 74 when the disk would not take what had
    to be written (the last checkpoint counts).
    """
    process = Process()
    turns = Turns(channel) if channel is not None else None
    following: Path | None = directory
    try:
        while following is not None:
            directory = following
            status = _begin(directory, make_context, process)
            following = turns.next(directory, process) if turns is not None else None
    except (StorageError, OSError) as error:
        if not is_storage_trouble(error) and not isinstance(error, StorageError):
            raise
        say(f"{CANNOT_WRITE}{_about_the_disk(error)}")
        return EXIT_STORAGE
    return status


def _begin(
    directory: Path, make_context: Callable[[Path, Order], AttemptContext], process: Process
) -> int:
    try:
        order = Order.from_json(read_json(directory / ORDER) or {})
    except ValueError as error:
        say(f"{directory / ORDER}: {error}")
        return InputError.exit_code
    faults.point("worker.started")
    lock = process.take(directory.parent.parent / "lock")
    if lock is None or (directory / REVOKED).exists() or (directory / RESULT).exists():
        return EXIT_FENCED
    faults.point("worker.locked")
    return attempt(directory, order, make_context, process)


def attempt(
    directory: Path,
    order: Order,
    make_context: Callable[[Path, Order], AttemptContext] = AttemptContext,
    process: Process | None = None,
) -> int:
    """Execute `order`, the run's lock being held; the process's exit status.

    0 when a result was sealed, 75 when asked to leave.  Raises StorageError or OSError when the
    disk would not take what had to be written.
    """
    # A power cut ends the worker too: nobody asks then who it was.
    seal_json(directory / WORKER, own_identity().as_json(), lasting=False)
    (directory / HEARTBEAT).touch()
    drop_abandoned()

    context = make_context(directory, order)
    (process or Process()).listen(context.signalled)
    threads = f"{order.threads} thread{'s' if order.threads > 1 else ''}"
    say(f"r{order.run_id}, attempt {order.number}: {order.job} on {order.device_id}, {threads}")
    result = _execute(directory, order, context)
    status = _conclude(directory, result, context)
    if process is not None and result.outcome == Outcome.COMPLETED and _shares_worker(order):
        process.release()
    return status


def _shares_worker(order: Order) -> bool:
    """Whether a process that executed `order` may execute others: never with code not ours."""
    own = any(name in order.inputs for name in CODE)
    return not own and catalog.job(order.job).shares_worker


def _conclude(directory: Path, result: Result, context: AttemptContext) -> int:
    """Seal the result; the exit status that goes with it."""
    final = Result(
        **{
            **result.as_json(),
            "outcome": result.outcome,
            "artifacts": context.artifacts,
            "events_offset": context.end(),
        }
    )
    seal_json(directory / RESULT, final.as_json(), along=[context.sync])
    context.close()
    say(f"{final.outcome}: {final.error or final.why or f'{final.num_steps} steps'}")
    return EXIT_STOPPED if result.outcome == Outcome.STOPPED else 0


def _execute(directory: Path, order: Order, context: AttemptContext) -> Result:
    """Run the job; whatever it raises becomes an outcome (the traceback goes to the log)."""
    try:
        return _completed(_run(order, context))
    except Stopped as stop:
        return Result(Outcome.STOPPED, why=str(stop))
    except Exception as error:  # a job may raise anything; the attempt must still end well
        missing = _missing_input(order, error)
        if missing is not None:
            say(f"its data is not there: {missing} [{_one_line(error)}]")
            return Result(
                Outcome.STOPPED,
                why=WAITS_FOR_DATA,
                missing=missing.source,
                error=printable(str(missing)),
            )
        if isinstance(error, InputError):
            return Result(Outcome.REFUSED, error=printable(str(error)))
        memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
        # Without room an error is its consequence, whatever a library makes of it.
        if is_storage_trouble(error) or (not memory and shortage(directory) is not None):
            raise StorageError(_about_the_disk(error)) from error
        say(traceback.format_exc())
        outcome = Outcome.OUT_OF_MEMORY if memory else Outcome.FAILED
        return Result(outcome, error=_one_line(error))


def _missing_input(order: Order, error: Exception) -> DataNotThere | None:
    """The input that is not there, if that explains an `error`; whatever the job made of it.

    A job whose images go away may find no class folders, or a file that ends too early.
    """
    inputs = [(_source(planned), planned["fingerprint"]) for planned in _read(order).values()]
    if isinstance(error, DataNotThere) and error.source in {source.where for source, _ in inputs}:
        return error
    for source, planned in inputs:
        try:
            require_there(source, planned)
        except DataNotThere as missing:
            return missing
    return None


def _completed(completed: Completed) -> Result:
    return Result(
        Outcome.COMPLETED,
        num_steps=completed.num_steps,
        metrics=dict(completed.metrics),
        state_sha256=completed.state_sha256,
        flags=completed.flags,
    )


def _run(order: Order, context: AttemptContext) -> Completed:
    verify_interpreter(order.inputs)
    job = _job(order)
    if job.version != order.job_version:
        raise InputError(
            f"job {order.job} is now version {job.version}; this run was planned for version "
            f"{order.job_version}",
            fix="Enqueue the spec again",
        )
    context.note("environment", **environment())
    if order.device_kind == "gpu":
        _check_alone(order.device_id)
    for name, planned in _read(order).items():
        verify(name, _source(planned), planned["fingerprint"])
    return job.run(job.Params.model_validate(order.params), context)


def _job(order: Order) -> Job[Any]:
    if SOURCE not in order.inputs:
        return catalog.job(order.job)
    return planned_job(order.job, order.inputs, Path(order.sources))


def _read(order: Order) -> dict[str, Mapping[str, str]]:
    """The inputs that the job reads; its code is another matter."""
    return {name: i for name, i in order.inputs.items() if name not in CODE}


def _source(planned: Mapping[str, str]) -> Input:
    return Input(planned["kind"], planned["where"])  # type: ignore[arg-type]


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


def _about_the_disk(error: Exception) -> str:
    """What the disk did and where, without the number of an OSError."""
    if isinstance(error, OSError) and error.strerror:
        where = f": {printable(os.fsdecode(error.filename))}" if error.filename else ""
        return f"{error.strerror}{where}"
    return str(error) if isinstance(error, StorageError) else _one_line(error)


def _one_line(error: Exception) -> str:
    text = " ".join(printable(str(error)).split())
    return f"{type(error).__name__}: {text}"[:500]
