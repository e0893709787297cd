"""The job ``command``: an existing program as a run, with a device, a log, retries and a record.

The program is a black box: it saves its own state in a folder that the next attempt is given a
copy of, prints its metrics, and leaves files to keep in another folder.  A resumed run equals an
uninterrupted one as far as the program sees to that; such a run is flagged ``own_resume``.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field

from ftd.errors import InputError
from ftd.files import sha256_of
from ftd.job import Completed, Context, Input, Job, Params, Stopped, Writer
from ftd.process import signal_name
from ftd.regular import full_path
from ftd.seeds import STREAMS
from jobs import placeholders
from jobs.metric_rows import Rows
from jobs.program import Program

PLACES = ("checkpoint_dir", "artifact_dir")
KNOWN = (*PLACES, "device", "threads", "seed", *(f"seed.{stream}" for stream in STREAMS))
SEEDS = 1 << 31  # what every library takes as a seed
ROWS = "rows.jsonl"  # the metrics of all attempts, in the workspace

Value = str | int | float | bool


class CommandParams(Params):
    """What is started, and what it depends on."""

    command: list[str] | None = Field(
        None,
        min_length=1,
        description="Program and arguments, started without a shell. {checkpoint_dir}, "
        "{artifact_dir}, {device}, {threads}, {seed}, {seed.STREAM}, {param.NAME} are filled in.",
    )
    script: str | None = Field(
        None,
        description="A Python file instead of command: the run's own python executes it. Its "
        "content is part of the question. Relative to the spec.",
    )
    args: list[str] = Field(
        default_factory=list, description="Arguments of script; placeholders are filled in."
    )
    param: dict[str, Value] = Field(
        default_factory=dict, description="Values for {param.NAME}; factors can set param.NAME."
    )
    env: dict[str, str] = Field(
        default_factory=dict, description="Environment variables; placeholders are filled in."
    )
    reads: list[str] = Field(
        default_factory=list,
        description="Files and folders it reads: other content is another question. Relative to "
        "the spec.",
    )
    workdir: str = Field(".", description="Folder it is started in. Relative to the spec.")
    metric: str | None = Field(
        None, description="The metric that summaries show first, as in test/top1."
    )
    grace_s: float = Field(
        20.0, ge=0, description="Seconds from SIGTERM to SIGKILL when it is asked to leave."
    )


class Command(Job[CommandParams]):
    """Any program."""

    Params = CommandParams

    def resolve(self, params: CommandParams, base: Path) -> CommandParams:
        """Absolute paths; refuse what cannot be started or would have no effect."""
        _check(params)
        explicit: dict[str, Any] = {
            "workdir": str(_existing(params.workdir, base, "workdir", folder=True)),
            "reads": [str(_existing(path, base, "reads")) for path in params.reads],
        }
        if params.script is not None:
            explicit["script"] = str(_existing(params.script, base, "script", folder=False))
        elif params.command is not None and "/" in params.command[0]:
            program = str(_existing(params.command[0], base, "command", folder=False))
            explicit["command"] = [program, *params.command[1:]]
        return params.model_copy(update=explicit)

    def identity(self, params: CommandParams) -> Mapping[str, Any]:
        """What is started where; files count by their content, which the inputs tell."""
        unused = {"script", "reads", "metric", "grace_s"}
        return params.model_dump(mode="json", exclude=unused)

    def inputs(self, params: CommandParams) -> Mapping[str, Input]:
        """The script, or the program if it was written as a path, and whatever it reads."""
        found = {}
        if params.script is not None:
            found["script"] = Input("file", params.script)
        elif params.command is not None and "/" in params.command[0]:
            found["program"] = Input("file", params.command[0])
        for number, path in enumerate(params.reads):
            found[f"reads.{number}"] = Input("folder" if Path(path).is_dir() else "file", path)
        return found

    def primary_metric(self, params: CommandParams) -> str:
        """As the spec says."""
        return params.metric or ""

    def run(self, params: CommandParams, context: Context) -> Completed:
        """Start the program, record what it prints, keep what it leaves."""
        context.fingerprint({"command": self.version, "device": context.device})
        checkpoint = context.restore()
        workspace = context.workspace()
        folders = {name: workspace / name for name in PLACES}
        resumed = any(folder.is_dir() for folder in folders.values())
        for folder in folders.values():
            folder.mkdir(exist_ok=True)
        rows = Rows(context, workspace / ROWS, checkpoint.step if checkpoint else 0)
        values = _values(params, context, folders)
        program = Program(
            [placeholders.filled(text, values) for text in _command(params)],
            Path(params.workdir),
            _environment(params, values, folders),
            rows.take,
        )
        try:
            status = _followed(program, rows, context, params.grace_s)
        finally:
            program.kill()
        if status != 0:
            raise RuntimeError(_ended(status, rows.last_lines))
        rows.finish()
        return Completed(
            metrics=rows.latest(),
            state_sha256=_keep(folders["artifact_dir"], rows, context),
            num_steps=rows.step,
            flags=(("own_resume",) if resumed else ()) + (("diverged",) if rows.diverged else ()),
        )


def _followed(program: Program, rows: Rows, context: Context, grace_s: float) -> int:
    """The program's exit status; asked to stop, it is asked to leave and Stopped goes on."""
    try:
        while (status := program.look()) is None:
            context.checkpoint(rows.step, partial(_files, rows.step))
    except Stopped:
        program.leave(grace_s)
        raise
    return status


def _files(step: int) -> dict[str, Writer]:
    """Of the program's state nothing is known but how far it said to be."""
    return {"step.json": lambda path: _write(path, json.dumps({"step": step}))}


def _write(path: Path, text: str) -> None:
    path.write_text(text)


def _check(params: CommandParams) -> None:
    if (params.command is None) == (params.script is None):
        raise InputError(
            "give command or script, one of them",
            where="command" if params.command is not None else "",
            fix="Write command: [PROGRAM, ARGUMENT, ...] or script: FILE.py",
        )
    if params.args and params.script is None:
        raise InputError("args belong to script", where="args", fix="Write them into command")
    known = [*KNOWN, *(f"param.{name}" for name in params.param)]
    texts = params.args if params.command is None else params.command
    placeholders.check(texts, known, "args" if params.command is None else "command")
    placeholders.check(params.env.values(), known, "env")
    used = placeholders.names_in([*texts, *params.env.values()])
    for name in params.param:
        if f"param.{name}" not in used:
            raise InputError(
                f"param.{name} has no effect",
                where="param",
                fix=f"Write {{param.{name}}} where the program takes it, or leave it out",
            )


def _existing(text: str, base: Path, where: str, folder: bool | None = None) -> Path:
    """The absolute path of something that is there."""
    path = full_path(text, base)
    fits = {None: path.exists(), True: path.is_dir(), False: path.is_file()}[folder]
    if not fits:
        kind = {None: "file or folder", True: "folder", False: "file"}[folder]
        raise InputError(f"there is no {kind} {path}", where=where, fix="Check the path")
    return path


def _command(params: CommandParams) -> list[str]:
    if params.command is not None:
        return params.command
    assert params.script is not None, "one of them is given"
    return [sys.executable, params.script, *params.args]


def _values(params: CommandParams, context: Context, folders: Mapping[str, Path]) -> dict[str, str]:
    seeds = {f"seed.{name}": str(seed % SEEDS) for name, seed in context.seeds.items()}
    return {
        **{name: str(folder) for name, folder in folders.items()},
        **seeds,
        "seed": seeds["seed.init"],
        "device": context.device,
        "threads": str(context.threads),
        **{f"param.{name}": _spelled(value) for name, value in params.param.items()},
    }


def _spelled(value: Value) -> str:
    return json.dumps(value) if isinstance(value, bool) else str(value)


def _environment(
    params: CommandParams, values: Mapping[str, str], folders: Mapping[str, Path]
) -> dict[str, str]:
    told = {f"FTD_{name.upper()}": str(folder) for name, folder in folders.items()}
    told |= {f"FTD_{name.upper()}": values[name] for name in ("seed", "device")}
    own = {name: placeholders.filled(text, values) for name, text in params.env.items()}
    return {**os.environ, **told, **own}


def _ended(status: int, last_lines: list[str]) -> str:
    how = f"with status {status}" if status > 0 else f"by {signal_name(-status)}"
    said = f"; it last printed: {' | '.join(last_lines)}" if last_lines else ""
    return f"the program ended {how}{said}"


def _keep(folder: Path, rows: Rows, context: Context) -> str:
    """Keep every file below `folder`; the digest of them all, or of the metrics without any."""
    digest = hashlib.sha256()
    for path in sorted(found for found in folder.rglob("*") if found.is_file()):
        name = "__".join(path.relative_to(folder).parts)
        context.artifact(name, partial(_link, path))
        digest.update(f"{name}\0{sha256_of(path)}\n".encode())
    digest.update(json.dumps(sorted(rows.latest().items())).encode())
    return digest.hexdigest()


def _link(path: Path, to: Path) -> None:
    to.unlink(missing_ok=True)
    if path.is_symlink():
        shutil.copyfile(path, to)
    else:
        os.link(path, to)  # nobody writes to it any more
