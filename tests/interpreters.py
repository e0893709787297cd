"""An interpreter of somebody's own: it knows ftd and pydantic, and nothing else."""

from __future__ import annotations

import importlib.util
import sysconfig
import venv
from collections.abc import Mapping
from pathlib import Path

import ftd

PYDANTIC = (
    "annotated_types", "pydantic", "pydantic_core", "typing_extensions", "typing_inspection",
)  # fmt: skip


def make_interpreter(root: Path, *, knows_ftd: bool = True) -> Path:
    """A virtual environment below `root` without pip; the path of its python."""
    venv.create(root, with_pip=False, symlinks=True)
    packages = packages_of(root)
    if knows_ftd:
        for name in PYDANTIC:
            found = importlib.util.find_spec(name)
            assert found is not None and found.origin is not None
            origin = Path(found.origin)
            place = origin.parent if origin.name == "__init__.py" else origin
            (packages / place.name).symlink_to(place)
        source = Path(ftd.__file__).parent
        (packages / "ftd").symlink_to(source)
    return root / "bin" / "python"


def packages_of(root: Path) -> Path:
    """Where a virtual environment's packages are."""
    return Path(sysconfig.get_path("purelib", "venv", {"base": str(root)}))


def install(root: Path, name: str, modules: Mapping[str, str], entry_points: str = "") -> None:
    """Put a distribution into a virtual environment: files by path, and what it offers."""
    packages = packages_of(root)
    for path, text in modules.items():
        file = packages / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    record = packages / f"{name}-1.0.dist-info"
    record.mkdir(exist_ok=True)
    (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (record / "entry_points.txt").write_text(entry_points)
