"""Negative controls: a promise's mechanism is taken out, and the test of the promise must fail.

A test that passes proves little until it has been seen to fail for its reason.  `controls.toml`
lists, for every row of the table in docs/reliability.md, which lines hold the promise and which
tests notice when they are gone.  Everything happens in a copy of the tree, with an interpreter of
its own, so that daemons and workers are the copy's too.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from site import getsitepackages
from xml.etree import ElementTree

from tests.control_list import ROOT, Control, controls

PACKAGES = ("ftd", "jobs", "migrations")
WAIT_S = 30  # of tests for what will not come: they wait far longer for a loaded machine
LIMIT_S = 120  # of one test; one that hangs has failed
INTERRUPT_S = 20  # for its fixtures to clean up then


class Bench:
    """A copy of the tree below `folder`, and an interpreter that imports nothing but the copy."""

    def __init__(self, folder: Path, patience: float) -> None:
        self.folder = folder
        self.patience = patience  # how many times as long as usual a test may take
        self.root = folder / "tree"
        self.python = folder / "venv" / "bin" / "python"
        for name in _files():
            copy = self.root / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes((ROOT / name).read_bytes())
        venv.create(folder / "venv", symlinks=True)
        (library,) = (folder / "venv").glob("lib/python*/site-packages")
        (library / "copy.pth").write_text("\n".join([str(self.root), *getsitepackages()]))
        # By hash, not by time: a change that is taken back within a second is noticed.
        self._call("-m", "compileall", "-q", "--invalidation-mode", "checked-hash", *PACKAGES)
        where = self._call("-P", "-c", f"import {', '.join(PACKAGES)}; print(ftd.__path__[0])")
        assert where.strip() == str(self.root / "ftd"), f"not the copy: {where}"

    def unfit(self, tests: Collection[str]) -> dict[str, str]:
        """Those of the tests that do not pass although nothing is taken out, and why."""
        missing = unknown(tests, self.root, self.python)
        found = dict.fromkeys(missing, "there is no such test")
        report = self.folder / "report.xml"
        known = sorted(set(tests) - missing)
        done = self._pytest(*known, f"--junitxml={report}", limit_s=None)
        if done is None or done.returncode not in (0, 1):
            sys.exit(f"the tests cannot be run:\n{done.stdout if done else ''}")
        for case in ElementTree.parse(report).iter("testcase"):
            trouble = [part for part in case if part.tag in ("failure", "error", "skipped")]
            if trouble:
                file = case.get("classname", "").removeprefix("tests.")
                found[f"{file}.py::{case.get('name')}"] = trouble[0].get("message", "")
        return found

    def passing(self, control: Control) -> tuple[list[str], str]:
        """The tests that pass although the mechanism is out, and the first line of a failure.

        Raises ValueError when the control does not fit the tree, or breaks more than it should.
        """
        before = {c.file: (self.root / c.file).read_bytes() for c in control.changes}
        try:
            for change in control.changes:
                (self.root / change.file).write_text(change.applied(self.root))
            passing, reason = [], ""
            for test in control.tests:
                done = self._pytest(test, "-x", limit_s=LIMIT_S * self.patience)
                if done is not None and done.returncode == 0:
                    passing.append(test)
                elif done is not None and not re.search(r"^.*\b\d+ failed", done.stdout, re.M):
                    raise ValueError(f"{test} cannot even begin:\n{done.stdout[-3000:]}")
                else:
                    reason = reason or (_reason(done.stdout) if done else "it hung")
            return passing, reason
        finally:
            for file, content in before.items():
                (self.root / file).write_bytes(content)

    def _pytest(
        self, *arguments: str, limit_s: float | None
    ) -> subprocess.CompletedProcess[str] | None:
        """Run tests to their end; None when that takes longer than `limit_s`."""
        mark = f"FTD_CONTROLS={self.folder}"
        environment = {**os.environ, "FTD_CONTROLS": str(self.folder)}
        if limit_s is not None:
            environment["FTD_TEST_DEADLINE_S"] = str(WAIT_S * self.patience)
        command = [
            *(str(self.python), "-P", "-m", "pytest", "--tb=short", "-p", "no:cacheprovider"),
            *("--hypothesis-seed=0", f"--basetemp={self.folder / 'tmp'}"),
            *(a if a.startswith("-") else f"tests/{a}" for a in arguments),
        ]
        with subprocess.Popen(
            command, cwd=self.root, env=environment, errors="replace", start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as child:  # fmt: skip
            try:
                said, _ = child.communicate(timeout=limit_s)
            except subprocess.TimeoutExpired:
                child.send_signal(signal.SIGINT)  # unlike SIGKILL, lets fixtures clean up
                try:
                    child.communicate(timeout=INTERRUPT_S)
                except subprocess.TimeoutExpired:
                    child.kill()
                return None
            finally:
                _end_all(mark.encode())
        return subprocess.CompletedProcess(command, child.returncode, said)

    def _call(self, *arguments: str) -> str:
        done = subprocess.run(
            [str(self.python), *arguments], cwd=self.root, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def unknown(
    tests: Collection[str], root: Path = ROOT, python: Path | str = sys.executable
) -> set[str]:
    """Those of the tests that pytest does not find below `root`; parameters may be left out."""
    files = sorted({f"tests/{test.partition('::')[0]}" for test in tests})
    command = [str(python), "-P", "-m", "pytest", "-o", "addopts=", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "--collect-only", "-q", *files],
        cwd=root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = {line.removeprefix("tests/") for line in done.stdout.splitlines()}
    return set(tests) - found - {test.partition("[")[0] for test in found}


def _files() -> list[str]:
    """What git has or would take in: no virtual environment, no caches."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in names.split("\0") if name and (ROOT / name).is_file()]


def _reason(said: str) -> str:
    found = re.search(r"^[ |]*E  +(.+)", said, re.M)
    return found[1] if found else "it failed"


def _end_all(mark: bytes) -> None:
    """Kill daemons and workers that failed tests left behind: ours carry the mark."""
    while True:
        left = [pid for pid in os.listdir("/proc") if pid.isdecimal() and _carries(pid, mark)]
        if not left:
            return
        for pid in left:
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.05)


def _carries(pid: str, mark: bytes) -> bool:
    try:
        return mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False  # gone, or somebody else's


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out controls; 0 when every test was seen to fail."""
    parser = argparse.ArgumentParser(prog="python -m tests.controls", description=__doc__)
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="controls whose name or row contains this"
    )
    parser.add_argument("--jobs", type=int, default=1, help="controls at once")
    parser.add_argument(
        "--patience", type=float, default=1.0, help="more than 1 when the machine has much to do"
    )
    args = parser.parse_args(argv)
    wanted = args.only or [""]
    chosen = [c for c in controls() if any(part in c.out or part in c.row for part in wanted)]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ftd-controls-", ignore_cleanup_errors=True) as folder:
        benches = [Bench(Path(folder) / str(n), args.patience) for n in range(args.jobs)]
        verdicts = _verdicts(chosen, benches)
    counts = {verdict: verdicts.count(verdict) for verdict in ("failing", "passed", "stale")}
    print(
        f"{len(chosen)} controls: {counts['failing']} seen failing, {counts['passed']} passed, "
        f"{counts['stale']} stale ({time.monotonic() - began:.0f} s)"
    )
    return int(not chosen or counts["failing"] < len(chosen))


def _verdicts(chosen: Sequence[Control], benches: Sequence[Bench]) -> list[str]:
    unfit = benches[0].unfit({test for control in chosen for test in control.tests})
    for test, why in unfit.items():
        print(f"without any change, {test} does not pass: {why}", flush=True)
    free: SimpleQueue[Bench] = SimpleQueue()
    for bench in benches:
        free.put(bench)

    def verdict(control: Control) -> str:
        bench = free.get()
        began = time.monotonic()
        try:
            found, why = _verdict(control, bench, unfit)
        finally:
            free.put(bench)
        shown = "seen failing" if found == "failing" else found.upper()
        seconds = f"{time.monotonic() - began:.0f} s"
        print(f"{shown}, {seconds}: {control.row} | {control} | {why}", flush=True)
        return found

    with ThreadPoolExecutor(len(benches)) as pool:
        return list(pool.map(verdict, chosen))


def _verdict(control: Control, bench: Bench, unfit: Iterable[str]) -> tuple[str, str]:
    """failing, passed or stale, and why."""
    for test in control.tests:
        if any(one.partition("[")[0] == test or one == test for one in unfit):
            return "stale", f"{test} does not pass as it is"
    try:
        passing, reason = bench.passing(control)
    except ValueError as error:
        return "stale", str(error)
    return ("passed", f"passes all the same: {', '.join(passing)}") if passing else (
        "failing", reason
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
