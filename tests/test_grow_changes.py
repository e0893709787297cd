"""What a run that grew has changed: its new parts are looked at beside the old layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from ftd.job import Completed
from jobs.changes import Changes
from jobs.features.backbone import backbone
from jobs.grow import Grow
from jobs.inspection.study import ARRAYS, MAP
from jobs.params.model import ModelParams
from jobs.sources import WeightsRun
from tests.context import FolderContext

pytestmark = pytest.mark.usefixtures("torch_left_as_found")

TARGET = {
    "dataset": "digits", "decode_size": 16, "test_per_class": 3, "val_per_class": 4, "per_class": 4,
}  # fmt: skip
TRAIN = {"epochs": 3, "batch_size": 20, "lr": 0.03, "keep": "last", "select": None, "flip": False}


class Route:
    """Runs of grow, each from the one before, in one store."""

    def __init__(self, root: Path, store: Path) -> None:
        self.root, self.store = root, store
        self.kept: dict[str, Path] = {}

    def goes_on(self, weights: object, **growth: Any) -> str:
        """Another run; its name."""
        torch.set_num_threads(1)
        name = f"r{len(self.kept) + 1}"
        raw = {
            "model": {"name": "mini8", "weights": weights},
            "layers": "R(1-8)" if weights == "none" else "FT(1-7)R(8)",
            "target": TARGET,
            "train": TRAIN,
            "growth": growth,
        }
        job = Grow()
        job.run(job.resolve(job.Params.model_validate(raw), Path()), self.context(name))
        self.kept[name] = self.root / name / "artifacts"
        return name

    def changes(self, name: str, before: str, after: str, **more: Any) -> tuple[Completed, Path]:
        """What happened between two of its runs, and the folder of what was kept of that."""
        raw = {
            "model": {"name": "mini8", "weights": {"run": before}},
            "after": {"run": after},
            "target": TARGET,
            "pictures": {"units": 2, "images": 3},
        }
        job, context = Changes(), self.context(name)
        found = job.run(job.resolve(job.Params.model_validate(raw | more), Path()), context)
        return found, context.root / "artifacts"

    def context(self, name: str) -> FolderContext:
        """What another run of it is executed in."""
        folder = self.root / name
        folder.mkdir()
        return FolderContext(folder, shared=self.store, runs=self.kept)


@pytest.fixture(scope="module")
def route(tmp_path_factory: pytest.TempPathFactory, store: Path) -> Route:
    """A source (r1); grown from it wa with scaling (r2), without (r3), da (r4), wa and wa (r5)."""
    found = Route(tmp_path_factory.mktemp("route"), store)
    found.goes_on("none", type="none")
    found.goes_on({"run": "r1"}, type="wa", units=12)
    found.goes_on({"run": "r1"}, type="wa", units=12, scale="off")
    found.goes_on({"run": "r1"}, type="da", units=20)
    found.goes_on({"run": "r2"}, type="wa", units=5)
    return found


@pytest.mark.parametrize(
    ("run", "parts", "pictured", "width"),
    [
        ("r2", ["fc7+", "scale"], "fc7+", 268),
        ("r3", ["fc7+"], "fc7+", 268),
        ("r4", ["fc_a", "scale"], "fc_a", 20),
    ],
)
def test_new_parts_are_looked_at(
    run: str, parts: list[str], pictured: str, width: int, route: Route
) -> None:
    """They have features after the run and nothing before; units and the whole are pictured."""
    found, folder = route.changes(f"changes {run}", "r1", run)
    of_parts = {name for name in found.metrics if name.endswith(tuple(f"_{p}" for p in parts))}
    assert {f"val/separability_after_{p}" for p in parts} <= of_parts
    assert {f"val/probe_after_{p}" for p in parts} <= of_parts
    assert not any("before" in name or "cka" in name or "change" in name for name in of_parts)
    assert "val/cka_fc7" in found.metrics and "change/relative_fc7" in found.metrics
    arrays = load_file(folder / ARRAYS)
    assert len(arrays[f"average_precision_after/{parts[-1]}"]) == width
    assert arrays["map_grown"].shape == arrays["map_after"].shape == (40, 2)
    assert not np.array_equal(arrays["map_grown"], arrays["map_after"])
    for name in (MAP, f"units-{pictured}.png"):
        with Image.open(folder / name) as picture:
            assert picture.format == "PNG" and picture.width > 100


def test_pictured_units_are_new_ones(route: Route, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where nothing scales them, so that old units are heard before them."""
    from jobs.inspection import album

    seen = []
    original = album.most_exciting

    def watched(peaks: Any, unit: int, number: int) -> Any:
        seen.append(peaks.shape[1])
        return original(peaks, unit, number)

    monkeypatch.setattr(album, "most_exciting", watched)
    route.changes("pictured", "r1", "r3")
    assert seen.count(12) == 2 and seen.count(256) == 4, "two new units; two old ones, twice"


def test_layers_that_are_named_are_all(route: Route) -> None:
    """Whoever names layers gets those alone, and the pictures of a network without growth."""
    found, folder = route.changes("named", "r1", "r2", layers=["fc7"])
    assert {name.rpartition("_")[2] for name in found.metrics} == {"fc7"}
    assert "map_grown" not in load_file(folder / ARRAYS)
    assert not list(folder.glob("units-*"))


def test_a_probe_says_that_numbered_layers_are_old_ones(route: Route) -> None:
    """The layers that people number are those of the network before it grew."""
    for run, expected in (("r1", []), ("r5", [{"num_growths": 2, "all": "read"}])):
        context = route.context(f"looks at {run}")
        model = ModelParams(name="mini8", weights=WeightsRun(run=run))
        backbone(model, context)
        assert [told for kind, told in context.notes if "old ones" in kind] == expected


def test_what_had_grown_before_is_compared(route: Route) -> None:
    """On a route, the parts of the first growth have a before; those of the second have none."""
    found, folder = route.changes("second", "r2", "r5")
    assert found.metrics["change/relative_fc7+"] > 0 and 0 < found.metrics["val/cka_scale"] < 1
    new = {name for name in found.metrics if name.endswith(("_fc7+2", "_scale2"))}
    assert "val/selectivity_after_fc7+2" in new and not any("before" in name for name in new)
    assert [path.name for path in folder.glob("units-*")] == ["units-fc7+2.png"]
