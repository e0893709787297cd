"""The real command in processes of its own: start-up, pipes, signals, terminals, following."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from ftd.layout import Home
from ftd.ledger.db import Ledger
from ftd.protocol import LOG
from ftd.states import RunState
from tests.finished import complete, fail
from tests.ledgers import enqueue, new_ledger, plan
from tests.processes import FTD, TIMEOUT_S, ftd, modules_after


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with one run, r1."""
    ledger = new_ledger(tmp_path)
    enqueue(ledger, plan(levels=(1,), replicates=1))
    ledger.close()
    return Home(tmp_path / "home")


HEAVY = {"torch", "torchvision", "numpy", "scipy", "pydantic", "yaml", "huey", "rich"}


def test_help_imports_next_to_nothing() -> None:
    """ftd --help costs argparse alone: none of the libraries, none of the other rooms."""
    loaded = modules_after("from ftd.cli.main import main\nmain(['--help'])") - modules_after("")
    assert not loaded & {*HEAVY, "peewee", "sqlite3", "shutil", "dataclasses"}
    assert {name for name in loaded if name.startswith("ftd.")} == {"ftd.cli", "ftd.cli.main"}


@pytest.mark.parametrize(
    "command", [["status"], ["runs"], ["show", "r1"], ["wait", "--timeout_s", "0"]]
)
def test_light_commands_stay_light(command: list[str], home: Home) -> None:
    """What people type all day loads the ledger and nothing heavy."""
    arguments = ["--home", str(home.root), *command]
    loaded = modules_after(f"from ftd.cli.main import main\nmain({arguments!r})")
    assert "peewee" in loaded
    assert not loaded & HEAVY


def test_a_summary_loads_no_torch(home: Home) -> None:
    """Statistics need scipy at most."""
    arguments = ["--home", str(home.root), "summary", "study"]
    loaded = modules_after(f"from ftd.cli.main import main\nmain({arguments!r})")
    assert not loaded & {"torch", "torchvision", "pydantic", "huey"}


def test_the_module_is_the_command(home: Home) -> None:
    """python -m ftd, standard input as the spec, errors on standard error, exit codes."""
    done = ftd("enqueue", "-", "--json", home=home.root, stdin="experiment: x\njob: drill\n")
    assert done.returncode == 0 and '"experiment": "x"' in done.stdout and done.stderr == ""
    wrong = ftd("enqueue", "-", home=home.root, stdin="experiment: x\njob: dril\n")
    assert wrong.returncode == 2 and wrong.stdout == ""
    assert wrong.stderr.startswith("ftd: standard input:2") and "drill" in wrong.stderr


def test_a_reader_that_leaves_is_no_error(home: Home) -> None:
    """ftd ... | head: quiet, and the status of a broken pipe."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*FTD, "--home", str(home.root), "runs"],
        stdout=writing, stderr=subprocess.PIPE, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_interrupting_a_wait_is_quiet(home: Home) -> None:
    """Ctrl-C ends with 130 and no traceback."""
    waiting = subprocess.Popen(
        [*FTD, "--home", str(home.root), "wait"], stderr=subprocess.PIPE, text=True
    )
    assert waiting.stderr is not None
    assert "no daemon" in waiting.stderr.readline()  # it waits now
    waiting.send_signal(signal.SIGINT)
    assert waiting.wait(TIMEOUT_S) == 130
    assert waiting.stderr.read() == ""
    waiting.stderr.close()


class Terminal:
    """A command that believes it runs in a terminal."""

    def __init__(self, *arguments: str) -> None:
        self.screen = b""
        self._master, slave = pty.openpty()
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "160", "LINES": "50"}
        self.process = subprocess.Popen(
            [*FTD, *arguments], env=environment, preexec_fn=lambda: os.login_tty(slave)
        )  # a controlling terminal, so that Ctrl-C becomes a signal
        os.close(slave)

    def until(self, text: bytes) -> None:
        """Wait until `text` appeared on the screen."""
        deadline = time.monotonic() + TIMEOUT_S
        while text not in self.screen:
            assert time.monotonic() < deadline, self.screen
            if select.select([self._master], [], [], 0.1)[0]:
                self.screen += os.read(self._master, 65536)

    def press(self, key: bytes) -> None:
        """Type something."""
        os.write(self._master, key)

    def close(self) -> int:
        """Its exit status; reads what is left so that it cannot block."""
        with suppress(OSError):  # EIO: nobody has the other side open any more
            while data := os.read(self._master, 65536):
                self.screen += data
        os.close(self._master)
        return self.process.wait(TIMEOUT_S)


@pytest.mark.parametrize("key", [b"q", b"\x03"])
def test_the_live_status_renews_itself_until_left(key: bytes, home: Home, tmp_path: Path) -> None:
    """In a terminal, status shows what changes meanwhile, and leaves on q and Ctrl-C with 0."""
    terminal = Terminal("--home", str(home.root), "status")
    terminal.until(b"no daemon is running")
    ledger = new_ledger(tmp_path)
    complete(ledger, 1, {"test/score": 0.4321})
    ledger.close()
    terminal.until(b"0.4321")
    terminal.press(key)
    assert terminal.close() == 0
    assert b"Traceback" not in terminal.screen


def test_tables_have_colours_in_a_terminal_only(home: Home) -> None:
    """Escape sequences belong in terminals; a pipe gets plain text."""
    terminal = Terminal("--home", str(home.root), "runs")
    terminal.until(b"queued")
    assert terminal.close() == 0
    assert b"\x1b[" in terminal.screen
    assert "\x1b" not in ftd("runs", home=home.root).stdout


def write_log(home: Home, attempt: int, text: str) -> None:
    """Append to the log of an attempt of r1."""
    folder = home.attempt(1, attempt)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOG).open("a") as stream:
        stream.write(text)


def test_following_goes_across_attempts_to_the_end(home: Home, tmp_path: Path) -> None:
    """logs -f prints all of every attempt, once, and ends when the run has ended."""
    following = subprocess.Popen(
        [*FTD, "--home", str(home.root), "logs", "r1", "-f"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert following.stdout is not None and following.stderr is not None
    ledger: Ledger = new_ledger(tmp_path)
    write_log(home, 1, "one\n")
    fail(ledger, 1, "no", RunState.QUEUED)
    assert following.stdout.readline() == "one\n"
    write_log(home, 1, "late\n")
    write_log(home, 2, "two\n")
    complete(ledger, 1, {"test/score": 0.5})
    ledger.close()
    rest, said = following.communicate(timeout=TIMEOUT_S)
    assert rest == "late\ntwo\n"
    assert "attempt 2" in said and following.returncode == 0
