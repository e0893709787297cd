"""The systemd unit, and what a stop, a restart and a shutdown through it mean to runs."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftd.errors import ConfigError
from ftd.service.systemd import Manager
from ftd.service.unit import Unit, home_in
from tests.homes import LiveHome, outcome_of
from tests.processes import ftd

NASTY = 'a b%h "q" \\ $x; {y} ü'
SPEC = """
experiment: served
job: drill
steps: 150
step_s: 0.03
factors: {score: [0.2, 0.7]}
seed: 4
"""


def unit(home: Path = Path("/srv/ftd"), **changed: object) -> Unit:
    """A unit of the user's own, with fields changed."""
    fields = {
        "config": None,
        "python": Path(sys.executable),
        "user": None,
        "mounts": (),
        "grace_s": 30.0,
    }
    return Unit(home=home, **{**fields, **changed})  # type: ignore[arg-type]


def settings(text: str) -> dict[str, str]:
    """The settings of a unit's text."""
    pairs = (line.partition("=") for line in text.splitlines() if not line.startswith("#"))
    return {name: value for name, sign, value in pairs if sign}


@pytest.mark.parametrize("user", [None, "ann"])
def test_a_unit_leaves_workers_alone_and_waits_for_the_home(user: str | None) -> None:
    """Only the daemon is stopped, one worker's memory is no other's end, the home is mounted."""
    found = settings(unit(user=user, mounts=(Path("/data/images"),)).text())
    assert found["KillMode"] == "process"
    assert found["OOMPolicy"] == "continue"
    assert found["Restart"] == "on-failure"
    assert found["RequiresMountsFor"] == "/srv/ftd /data/images"
    assert found["ExecStart"] == f"{sys.executable} -P -m ftd --home /srv/ftd daemon"
    assert found["WantedBy"] == ("multi-user.target" if user else "default.target")
    assert found.get("User") == user


def test_systemd_replaces_nothing_in_paths() -> None:
    """Percent signs, dollars, quotes and backslashes are said as systemd's own manual asks."""
    found = settings(unit(Path('/srv/100% $HOME "x" \\ y')).text())
    home = r'"/srv/100%% $$HOME \"x\" \\ y"'
    assert found["ExecStart"].endswith(f"--home {home} daemon")
    assert found["ExecStopPost"].endswith(f"--home {home} service checkpoint --at-shutdown")
    assert found["RequiresMountsFor"] == home.replace("$$", "$"), "no variables there"


@pytest.mark.parametrize("user", [None, "ann"])
def test_no_sandbox_hides_gpus_data_or_locks(user: str | None) -> None:
    """What would hide GPUs, data, other homes' locks or other people's processes is not there."""
    harmful = {
        "PrivateDevices", "DevicePolicy", "DeviceAllow", "ProtectClock", "ProtectHome",
        "PrivateTmp", "ProtectProc", "PrivateUsers", "MemoryDenyWriteExecute", "DynamicUser",
        "RootDirectory", "PrivateNetwork",
    }  # fmt: skip
    assert not harmful & set(settings(unit(user=user).text()))


def test_a_long_grace_is_given(tmp_path: Path) -> None:
    """systemd waits for last checkpoints at least as long as ftd.toml allows them."""
    assert settings(unit().text())["TimeoutStopSec"] == "90"
    assert settings(unit(grace_s=599.5).text())["TimeoutStopSec"] == "630"


@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1))
def test_a_unit_says_whose_it_is_for_every_printable_home(name: str) -> None:
    """The home is read back from the text; a path that a unit cannot hold is refused."""
    home = Path("/srv") / name
    if not str(home).isprintable():
        with pytest.raises(ConfigError, match="cannot be named"):
            unit(home).text()
    else:
        assert home_in(unit(home).text()) == home


@pytest.mark.parametrize("sign", ["'", '"', "\\"])
def test_a_program_that_systemd_would_not_start_is_refused(sign: str) -> None:
    """systemd takes no path with quotes or backslashes for a program, however it is written."""
    with pytest.raises(ConfigError, match="Install ftd into"):
        unit(python=Path(f"/opt/it{sign}s/python")).text()


@pytest.mark.parametrize("text", ["", "[Unit]\nHome=/srv/ftd\n", "[X-Ftd]\nHome=/srv"])
def test_a_foreign_unit_is_nobodys(text: str) -> None:
    """Only what install wrote is taken for ours."""
    assert home_in(text) is None


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)
@pytest.mark.parametrize("user", [None, "root"], ids=["user", "system"])
@pytest.mark.parametrize("name", ["ftd", NASTY], ids=["plain", "nasty"])
def test_systemd_accepts_the_unit(user: str | None, name: str, tmp_path: Path) -> None:
    """systemd-analyze verify finds nothing to say, and reads odd paths as they are meant."""
    home = tmp_path / name
    home.mkdir()
    python = tmp_path / "v env%h $x" / "python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)  # verify looks whether exactly this file can be executed
    path = tmp_path / "ftd.service"
    path.write_text(unit(home, python=python, user=user, config=home / "ftd.toml").text())
    command = ["systemd-analyze", "verify", "--man=no", *([] if user else ["--user"]), str(path)]
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LiveHome:
    """A home with two runs to do, and a folder for units of its own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    home = LiveHome(tmp_path / "home")
    home.enqueue(SPEC)
    return home


def answer(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, status: int = 0) -> Path:
    """Put a systemctl on the PATH that says this; the file that lists how it was called."""
    folder.mkdir(exist_ok=True)
    called = folder / "called"
    for name in ("systemctl", "loginctl"):
        script = folder / name
        script.write_text(
            f'#!/bin/sh\necho "{name} $*" >> {shlex.quote(str(called))}\n'
            f"echo {text}\nexit {status}\n"
        )
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return called


def test_install_and_uninstall(
    live: LiveHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The unit is written, enabled and started; then disabled and removed; the home stays."""
    called = answer(tmp_path / "bin", monkeypatch, "yes")
    path = Manager(system=False).folder / "ftd.service"
    assert path == tmp_path / "config/systemd/user/ftd.service"
    done = live.ftd("service", "install")
    assert done.returncode == 0, done.stderr
    assert path.read_text() == live.ftd("service", "install", "--print").stdout
    assert path.stat().st_mode & 0o777 == 0o644
    assert home_in(path.read_text()) == live.root
    assert live.json("service", "status")["home"] == str(live.root)
    assert live.ftd("service", "uninstall").returncode == 0
    assert not path.exists()
    assert len(live.runs()) == 2
    said = [line for line in called.read_text().splitlines() if "is-" not in line]
    assert [line for line in said if line.startswith("systemctl")] == [
        "systemctl --user daemon-reload",
        "systemctl --user enable --now ftd.service",
        "systemctl --user disable --now ftd.service",
        "systemctl --user daemon-reload",
    ]


def test_where_systemd_does_not_answer_it_is_said_what_to_type(
    live: LiveHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The unit is written all the same; the commands that are left to do are named."""
    answer(tmp_path / "bin", monkeypatch, "no", status=1)
    done = live.ftd("service", "install")
    assert done.returncode == 1
    assert "systemctl --user daemon-reload\n" in done.stdout
    assert "systemctl --user enable --now ftd.service\n" in done.stdout
    assert "sudo loginctl enable-linger" in done.stdout
    assert (tmp_path / "config/systemd/user/ftd.service").exists()


def test_another_homes_unit_is_not_overwritten(live: LiveHome, tmp_path: Path) -> None:
    """Two homes of one user need two names; foreign files are left alone too."""
    folder = tmp_path / "config/systemd/user"
    folder.mkdir(parents=True)
    other = unit(tmp_path / "other").text()
    for text in (other, "[Unit]\nDescription=mine\n"):
        (folder / "ftd.service").write_text(text)
        for action in ("install", "uninstall"):
            done = live.ftd("service", action)
            assert done.returncode == 2 and "Choose another --name" in done.stderr
        assert (folder / "ftd.service").read_text() == text
    live.ftd("service", "install", "--name", "ftd-second")
    assert (folder / "ftd-second.service").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["install", "--system", "--run-as", "nobody"], "does not belong to nobody"),
        (["install", "--system", "--run-as", "no such user"], "there is no user"),
        (["install", "--run-as", "nobody"], "Add --system"),
        (["install", "--name", "../x"], "is no name for a unit"),
    ],
)
def test_a_wrong_installation_is_refused(
    live: LiveHome, arguments: list[str], said: str, tmp_path: Path
) -> None:
    """Above all root's own home under sudo, where somebody else's was meant."""
    done = live.ftd("service", *arguments)
    assert done.returncode == 2
    assert said in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "config").exists()


def test_a_home_must_exist_before_it_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service for a mistyped home would make an empty one at the next boot."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    done = ftd("service", "install", home=tmp_path / "typo")
    assert done.returncode == 2 and "ftd init" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> object:
    """What the spec gives when nothing interrupts it."""
    home = LiveHome(tmp_path_factory.mktemp("twin") / "home")
    home.enqueue(SPEC)
    assert home.finish() == 0
    return outcome_of(home)


@pytest.mark.parametrize("going_down", [False, True], ids=["restart", "shutdown"])
def test_a_shutdown_lets_workers_checkpoint_and_a_restart_leaves_them(
    going_down: bool,
    live: LiveHome,
    twin: object,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As systemd does it: SIGTERM to the daemon alone, then the unit's ExecStopPost."""
    answer(tmp_path / "bin", monkeypatch, "stopping" if going_down else "running")
    text = live.ftd("service", "install", "--print").stdout
    at_stop = shlex.split(settings(text)["ExecStopPost"])
    live.start_daemon()
    for run in ("r1", "r2"):
        live.until_step(6, run)
    workers = live.workers()
    assert live.stop_daemon() == 0
    assert len(workers) == 2 and live.workers() == workers
    subprocess.run(at_stop, check=True, timeout=60, stdout=subprocess.DEVNULL)
    if going_down:
        assert live.workers() == []
    assert live.finish() == 0
    attempts = [live.json("show", run)["attempts"] for run in ("r1", "r2")]
    outcomes = [[attempt["outcome"] for attempt in some] for some in attempts]
    if not going_down:
        assert outcomes == [["completed"], ["completed"]]
    else:
        assert outcomes == [["stopped", "completed"], ["stopped", "completed"]]
        assert [some[1]["steps_redone"] for some in attempts] == [0, 0]
        assert all(some[1]["resumed_from_step"] >= 6 for some in attempts)
    assert outcome_of(live) == twin


def test_workers_are_not_asked_to_leave_beside_a_daemon(live: LiveHome) -> None:
    """It would start them again at once: the daemon has to be stopped first."""
    live.start_daemon()
    live.until_step(3, "r1")
    done = live.ftd("service", "checkpoint")
    assert done.returncode == 1 and "daemon already serves" in done.stderr
    assert live.workers()
    live.stop_daemon()
    assert live.ftd("service", "checkpoint").returncode == 0
    assert live.workers() == []


def test_status_without_a_service(live: LiveHome) -> None:
    """It says how to get one, in words and for scripts."""
    assert "'ftd service install'" in live.ftd("service", "status").stdout
    found = json.loads(live.ftd("service", "status", "--json").stdout)
    assert found["unit"] is None and found["daemon"] is None
