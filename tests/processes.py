"""Fresh processes for tests: what they import, what they print."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

FTD = (sys.executable, "-m", "ftd")
TIMEOUT_S = 120


def modules_after(code: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after running `code` quietly."""
    report = "import sys; sys.stderr.write(' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True, timeout=TIMEOUT_S, check=True,
    )  # fmt: skip
    return set(done.stderr.split())


def ftd(*arguments: str, home: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a real command to its end."""
    return subprocess.run(
        [*FTD, *arguments], input=stdin, capture_output=True, text=True, timeout=TIMEOUT_S,
        env={**os.environ, "FTD_HOME": str(home)}, check=False,
    )  # fmt: skip
