"""The wheel: everything works from it, in a clean environment, beside folders of the same names."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SPEC = "{experiment: wheel, job: drill, steps: 3}"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds the built wheel, not this source tree."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    for name in tracked:
        if (ROOT / name).is_file():
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, source],
        check=True,
    )
    (wheel,) = folder.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    (packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
    zipfile.ZipFile(wheel).extractall(packages)
    # The dependencies come from here; a plain path line does not process the editable install.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "venv" / "bin" / "python"


def _ftd(python: Path, cwd: Path, *arguments: str) -> str:
    done = subprocess.run(
        [python, "-P", "-m", "ftd", *arguments],
        cwd=cwd,
        env={**os.environ, "FTD_HOME": str(cwd / "home")},
        input=SPEC,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_run_from_the_wheel_beside_a_folder_called_jobs(python: Path, tmp_path: Path) -> None:
    """Ledger, daemon and worker of the wheel ignore folders `jobs` and `migrations` of the user."""
    for name in ("jobs", "migrations", "ftd"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('not yours')\n")
        (tmp_path / name / "drill.py").write_text("raise RuntimeError('not yours')\n")
    where = subprocess.run(
        [python, "-P", "-c", "import ftd, jobs, migrations; print(ftd.__file__)"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert str(python.parent.parent) in where
    _ftd(python, tmp_path, "init")
    assert (tmp_path / "home" / "ftd.toml").exists()
    _ftd(python, tmp_path, "enqueue", "-")
    _ftd(python, tmp_path, "daemon", "--until-idle")
    assert "1 done" in _ftd(python, tmp_path, "status")


def test_the_wheel_holds_what_its_code_reads(python: Path, tmp_path: Path) -> None:
    """Tables of layers and of published weights travel with the code."""
    assert "classifier" in _ftd(python, tmp_path, "layers", "resnet18")
    assert "efficientnet_lite0" in _ftd(python, tmp_path, "schema", "finetune")
