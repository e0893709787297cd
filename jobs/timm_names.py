"""Facts about timm's networks, found without importing timm or torch.

``timm/NAME`` is described by a process of its own (:mod:`jobs.models.describe`), once per name and
version of timm: the answer is kept in the user's cache folder.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from ftd.errors import InputError, UnknownName
from ftd.files import read_json, seal_json

PREFIX = "timm/"
FORMAT = 1  # raise it when networks would be described otherwise
TIME_LIMIT_S = 600
_NAMES = "-names"  # no network is called so
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,120}")


def is_timm(model: str) -> bool:
    """Whether `model` is the name of a network of timm's."""
    return model.startswith(PREFIX)


def no_timm() -> UnknownName:
    """The error to raise where timm is not installed."""
    return UnknownName(
        "networks called timm/... need the package timm, which is not installed",
        fix="pip install timm",
    )


def timm_version() -> str:
    """The installed version; UnknownName when timm is not installed."""
    try:
        return importlib.metadata.version("timm")
    except importlib.metadata.PackageNotFoundError:
        raise no_timm() from None


def described(model: str) -> dict[str, Any]:
    """``layers`` (names, compact) and ``record`` of ``timm/NAME``.

    Raises UnknownName for a network that is not there or cannot be used, and says why.
    """
    if not _NAME.fullmatch(model.removeprefix(PREFIX)):
        raise UnknownName(f"'{model}' is no name of a network")
    return _described(model, timm_version())


@lru_cache(maxsize=256)
def _described(model: str, version: str) -> dict[str, Any]:
    answer = _kept_or_asked(model, version, model.removeprefix(PREFIX))
    if "refused" in answer:
        raise UnknownName(answer["refused"], fix=answer.get("fix", ""))
    return answer


def timm_models() -> tuple[str, ...]:
    """The names of all networks of timm's, sorted; not all can be used."""
    answer = _kept_or_asked("--list", timm_version(), _NAMES)
    return tuple(PREFIX + name for name in answer["names"])


def _kept_or_asked(question: str, version: str, name: str) -> dict[str, Any]:
    """The answer that is kept as `name`, else a new one."""
    kept = cache_folder(version) / f"{name}.json"
    answer = None
    with contextlib.suppress(OSError):
        answer = read_json(kept)
    if answer is None:
        answer = _asked(question)
        if "refused" in answer:  # somebody may be about to mend it
            return answer
        with contextlib.suppress(OSError):  # without a writable home it is asked again next time
            kept.parent.mkdir(parents=True, exist_ok=True)
            seal_json(kept, answer)
    return answer


def cache_folder(version: str) -> Path:
    """Where answers are kept for one version of timm."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return cache / "ftd" / f"networks-{FORMAT}" / f"timm-{version}"


def _asked(question: str) -> dict[str, Any]:
    """What a process with torch and timm answers."""
    command = [sys.executable, "-P", "-m", "jobs.models.describe", question]
    try:
        done = subprocess.run(command, capture_output=True, timeout=TIME_LIMIT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise InputError(f"describing {question} took more than {TIME_LIMIT_S} s") from error
    lines = done.stdout.decode(errors="replace").splitlines()
    try:
        answer = json.loads(lines[-1]) if done.returncode == 0 else None
    except (IndexError, ValueError):
        answer = None
    if not isinstance(answer, dict):
        said = done.stderr.decode(errors="replace").strip().splitlines()
        why = said[-1] if said else f"exit status {done.returncode}"
        raise UnknownName(f"{question} cannot be described ({why})", fix="Choose another network")
    return answer
