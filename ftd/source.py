"""A job that is not built in: where its code is, which digest it has, and how it is loaded.

``./soup.py:Soup`` is a file of its own: its bytes are kept when a run is planned, and those very
bytes are executed.  ``package.module:Soup``, and a name in the entry point group ``ftd.jobs``, are
installed code: its digest is taken when a run is planned, and another one is refused.

Loading executes that code: it happens in workers and in the process that describes jobs, never in
the daemon nor in a command.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import inspect
import os
import platform
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeGuard

from ftd.errors import DataNotThere, InputError, UnknownName, closest
from ftd.files import make_folder, seal
from ftd.job import Job, Params
from ftd.regular import full_path, read_bytes

GROUP = "ftd.jobs"  # of entry points
MAX_BYTES = 4 << 20  # of a job's file
LOADED_AS = "own_job"  # the module's name: what its classes are known by in this process

# what a planned run's inputs call its code; no job may use these names
SOURCE, INTERPRETER = "job source", "python"
CODE = (SOURCE, INTERPRETER)

_FILE = re.compile(r"(?P<path>.+\.py):(?P<attribute>[A-Za-z_]\w*)", re.DOTALL)
_MODULE = re.compile(r"(?P<module>[A-Za-z_]\w*(\.[A-Za-z_]\w*)*):(?P<attribute>[A-Za-z_]\w*)")


def file_of(name: str, base: Path) -> Path | None:
    """The absolute path of the file in ``PATH.py:CLASS``, None for a job of another kind."""
    found = _FILE.fullmatch(name)
    return full_path(found["path"], base) if found else None


def absolute(name: str, base: Path) -> str:
    """The same job's name with the path of its file, if it is one, not relative any more."""
    found = _FILE.fullmatch(name)
    return f"{full_path(found['path'], base)}:{found['attribute']}" if found else name


def shown_name(name: str) -> str:
    """What a job is called wherever its file is: ``soup.py:Soup`` for ``~/lab/soup.py:Soup``."""
    return name.rpartition("/")[2] if _FILE.fullmatch(name) else name


def file_bytes(path: Path) -> bytes:
    """The bytes of a job's file.  Raises InputError when they cannot be read."""
    try:
        return read_bytes(path, MAX_BYTES)
    except OSError as error:
        raise InputError(
            f"cannot read the job's file {path} ({error.strerror})", fix="Check the path"
        ) from error


def sha256(data: bytes) -> str:
    """How a job's bytes are known: ``sha256:`` and the hex digest."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def kept_as(folder: Path, fingerprint: str) -> Path:
    """Where the bytes of a job's file are kept below `folder` (see Home.sources)."""
    return folder / (fingerprint.removeprefix("sha256:") + ".py")


def keep(folder: Path, data: bytes) -> Path:
    """Keep the bytes of a job's file below `folder`, durably; where they are."""
    path = kept_as(folder, sha256(data))
    make_folder(folder)
    if not path.is_file() or file_bytes(path) != data:
        seal(path, data)
    return path


def interpreter_input(python: str, version: str) -> dict[str, str]:
    """The interpreter at the path `python`, of this ``X.Y.Z``, as an input of runs."""
    return {"kind": "interpreter", "where": python, "fingerprint": f"{python} {version}"}


def verify_interpreter(inputs: Mapping[str, Mapping[str, str]]) -> None:
    """Raise InputError when we are another Python than the one a run was planned for."""
    planned = inputs.get(INTERPRETER)
    version = platform.python_version()
    if planned is not None and planned != interpreter_input(planned["where"], version):
        raise InputError(
            f"the run was planned for {planned['fingerprint']}, which is now Python {version}",
            fix="Enqueue the spec again",
        )


def planned_job(name: str, inputs: Mapping[str, Mapping[str, str]], sources: Path) -> Job[Any]:
    """The job of a planned run, from the very code that it was planned with.

    Raises DataNotThere when its kept file is away, InputError when the code is another one now.
    """
    planned = inputs[SOURCE]
    if planned["kind"] == "module":
        job, found = installed_job(name)
        if found != planned["fingerprint"]:
            raise InputError(
                f"the code of {name} changed since the run was planned",
                fix="Restore it, or enqueue the spec again to run what is installed now",
            )
        return job
    path = kept_as(sources, planned["fingerprint"])
    try:
        data = read_bytes(path, MAX_BYTES)
    except OSError as error:
        raise DataNotThere(
            f"cannot read {path}, the kept code of {name} ({error.strerror})",
            source=planned["where"],
            fix="Restore it from a backup, or enqueue the spec again",
        ) from error
    if sha256(data) != planned["fingerprint"]:
        raise InputError(f"{path} is not the code of {name} that was kept", fix="Restore it")
    return file_job(name, data, str(path))


def file_job(name: str, data: bytes, shown: str) -> Job[Any]:
    """The job in a file's bytes; `shown` is the path for tracebacks.  Executes the file."""
    found = _FILE.fullmatch(name)
    assert found is not None, "whoever calls looked at the name"
    module = ModuleType(LOADED_AS)
    module.__file__ = shown
    sys.modules[LOADED_AS] = module  # annotations of its classes are resolved there
    try:
        code = compile(data, shown, "exec", dont_inherit=True)
        exec(code, module.__dict__)
    except Exception as error:  # whatever somebody's code raises, it is told
        raise _import_error(error, shown) from error
    return _instance(module, found["attribute"], shown)


def installed_job(name: str) -> tuple[Job[Any], str]:
    """The job ``package.module:CLASS`` or of an entry point, and the digest of its code."""
    found = _MODULE.fullmatch(name) or _MODULE.fullmatch(_entry_point(name))
    if found is None:
        raise InputError(
            f"'{name}' names no job", fix="Write ./FILE.py:CLASS, PACKAGE.MODULE:CLASS or a name"
        )
    try:
        module = importlib.import_module(found["module"])
    except Exception as error:  # whatever somebody's code raises, it is told
        raise _import_error(error, found["module"]) from error
    return _instance(module, found["attribute"], found["module"]), _code_digest(module)


def entry_points() -> dict[str, str]:
    """Jobs that installed packages offer: name -> ``package.module:CLASS``."""
    return {entry.name: entry.value for entry in importlib.metadata.entry_points(group=GROUP)}


def _entry_point(name: str) -> str:
    offered = entry_points()
    if name not in offered:
        near = closest(name, list(offered))
        listed = f"Jobs of installed packages: {', '.join(sorted(offered)) or 'none'}"
        raise UnknownName(
            f"there is no job '{name}' for this python", fix=f"{near} {listed}".strip()
        )
    return offered[name]


def _instance(module: ModuleType, attribute: str, shown: str) -> Job[Any]:
    """The job that the class `attribute` of a module is.  Raises InputError for what is none."""
    found = getattr(module, attribute, None)
    jobs = [name for name, value in vars(module).items() if _is_job(value)]
    if not _is_job(found):
        near = closest(attribute, jobs) or (f"Jobs there: {', '.join(jobs)}" if jobs else "")
        what = f"'{attribute}' is no job" if found is not None else f"there is no '{attribute}'"
        fix = near or "Derive it from ftd.job.Job"
        raise InputError(what, where=shown, fix=fix)
    params = getattr(found, "Params", None)
    if not (isinstance(params, type) and issubclass(params, Params)):
        raise InputError(
            f"{attribute} has no Params",
            where=shown,
            fix="Give the class an attribute Params: a class derived from ftd.job.Params",
        )
    if type(found.version) is not int:
        raise InputError(f"{attribute}.version is no whole number", where=shown)
    return found()


def _is_job(value: object) -> TypeGuard[type[Job[Any]]]:
    return isinstance(value, type) and issubclass(value, Job) and not inspect.isabstract(value)


def _import_error(error: Exception, shown: str) -> InputError:
    """What to say about code that cannot be imported: what it raised, and on which line."""
    if isinstance(error, SyntaxError):
        return InputError(f"{type(error).__name__}: {error.msg}", where=f"{shown}:{error.lineno}")
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == shown]
    fix = ""
    if isinstance(error, ModuleNotFoundError):
        fix = (
            f"Install it for {sys.executable}, or name another interpreter with `python:`; a job's "
            "file cannot import the files beside it"
        )
    where = f"{shown}:{lines[-1]}" if lines else shown
    return InputError(f"{type(error).__name__}: {error}", where=where, fix=fix)


def _code_digest(module: ModuleType) -> str:
    """Digest of all Python files of the installed package that `module` belongs to."""
    package = sys.modules[module.__name__.partition(".")[0]]
    if package.__file__ is None:  # a namespace is shared by packages that have nothing in common
        package = module
    files = sorted(_python_files(package))
    digest = hashlib.sha256()
    for name, path in files:
        digest.update(f"{name}\0{sha256(path.read_bytes())}\n".encode())
    return "package sha256:" + digest.hexdigest()


def _python_files(package: ModuleType) -> Iterator[tuple[str, Path]]:
    for root in getattr(package, "__path__", ()):
        for folder, _, names in os.walk(root):
            for name in names:
                if name.endswith(".py"):
                    path = Path(folder, name)
                    yield str(path.relative_to(root)), path
    if not hasattr(package, "__path__") and package.__file__ is not None:
        yield "", Path(package.__file__)
