"""The job that says what fine-tuning changed: measured right, on the right images, exactly."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_tensors

from ftd.errors import DataError, InputError, WeightsError
from ftd.job import Completed
from ftd.seeds import streams
from jobs.changes import Changes, ChangesParams
from jobs.finetune import Finetune
from jobs.inspection.alignment import linear_cka
from jobs.inspection.study import ARRAYS, FILTERS, MAP, UNITS
from jobs.layers import numbered
from jobs.params.features import Pooling
from tests.context import FolderContext
from tests.finetuning import torch_as_found
from tests.homes import LiveHome
from tests.resume import Case, check_ways, every_place, killed_during_resume, run_whole

MODEL = "mini8"
LAYERS = "F(1-2)FT(3-6)R(7-8)"
TARGET: dict[str, Any] = {
    "dataset": "digits", "decode_size": 16, "test_per_class": 5, "val_per_class": 4, "per_class": 6,
}  # fmt: skip
TRAIN: dict[str, Any] = {"epochs": 4, "batch_size": 20, "lr": 0.05}


@dataclass(frozen=True)
class Runs:
    """Folders of what runs kept, by name, and the store they share."""

    kept: dict[str, Path]
    store: Path


def finetuned(
    root: Path, runs: Runs, weights: object, layers: str, init: int = 1, **target: Any
) -> Path:
    """What a run of finetune keeps, whose new layers are drawn from the seed `init`."""
    root.mkdir()
    raw = {
        "model": {"name": MODEL, "weights": weights},
        "layers": layers,
        "target": TARGET | target,
        "train": TRAIN,
    }
    job = Finetune()
    seeds = {**streams(1, 0), "init": init}
    context = FolderContext(root, seeds=seeds, runs=runs.kept, shared=runs.store)
    job.run(job.resolve(job.Params.model_validate(raw), Path()), context)
    return root / "artifacts"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, store: Path) -> Iterator[Runs]:
    """A source net trained from scratch (r1), and one adapted from it to fewer classes (r2)."""
    root, found = tmp_path_factory.mktemp("runs"), Runs({}, store)
    with torch_as_found():
        torch.set_num_threads(1)
        found.kept["r1"] = finetuned(root / "r1", found, "none", "R(1-8)")
        found.kept["r2"] = finetuned(
            root / "r2", found, {"run": "r1"}, LAYERS, classes={"drop": ["8", "9"]}
        )
        yield found


def params(**changes: Any) -> ChangesParams:
    """Resolved: r2 compared with r1, but for `changes`."""
    raw: dict[str, Any] = {
        "model": {"name": MODEL, "weights": {"run": "r1"}},
        "after": {"run": "r2"},
        "target": TARGET | {"classes": {"drop": ["8", "9"]}},
        "probe": False,
        "pictures": {"units": 2, "images": 3},
    }
    job = Changes()
    return job.resolve(job.Params.model_validate(raw | changes), Path())


def changes(
    root: Path, runs: Runs, wanted: ChangesParams | None = None, **context: Any
) -> tuple[Completed, FolderContext]:
    """A run of the job."""
    root.mkdir()
    made = FolderContext(root, runs=runs.kept, shared=runs.store, **context)
    return Changes().run(wanted or params(), made), made


@pytest.fixture(scope="module")
def found(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> tuple[Completed, Path]:
    """A run, and the folder of what it kept."""
    completed, context = changes(tmp_path_factory.mktemp("found") / "run", runs)
    return completed, context.root / "artifacts"


# --- what is measured -------------------------------------------------------------------------


def test_weights_are_compared_layer_by_layer(found: tuple[Completed, Path], runs: Runs) -> None:
    """Relative change and cosine drift of all parameters; nothing of frozen layers moved."""
    before, after = (load_tensors(runs.kept[run] / "weights.safetensors") for run in ("r1", "r2"))
    metrics = found[0].metrics
    old, new = (
        torch.cat([state[f"features.6.{name}"].flatten() for name in ("weight", "bias")]).double()
        for state in (before, after)
    )
    assert metrics["change/relative_conv3"] == pytest.approx(float((new - old).norm() / old.norm()))
    cosine = torch.nn.functional.cosine_similarity(old, new, dim=0)
    assert metrics["change/drift_conv3"] == pytest.approx(1 - float(cosine), rel=1e-6)
    assert 0 < metrics["change/relative_conv3"] < 1
    assert {metrics[f"change/relative_conv{n}"] for n in (1, 2)} == {0.0}
    drifts = load_file(found[1] / ARRAYS)["unit_drift/conv3"]
    assert len(drifts) == 48
    assert metrics["change/unit_drift_mean_conv3"] == pytest.approx(drifts.mean())
    quartiles = [metrics[f"change/unit_drift_{name}_conv3"] for name in ("q1", "median", "q3")]
    assert quartiles == pytest.approx(np.quantile(drifts, [0.25, 0.5, 0.75]).tolist())


def test_layers_without_weights_before_have_not_moved(found: tuple[Completed, Path]) -> None:
    """Re-initialised layers have features to compare, but no weights."""
    metrics = found[0].metrics
    assert not any("_fc7" in name or "_fc8" in name for name in metrics if "change/" in name)
    for layer in ("fc7", "fc8"):
        assert 0 <= metrics[f"val/cka_{layer}"] < 0.999
        assert metrics[f"val/separability_after_{layer}"] > 0


def test_features_below_what_was_tuned_are_the_same(found: tuple[Completed, Path]) -> None:
    """Whatever is measured of them, before and after."""
    metrics = found[0].metrics
    for layer in ("conv1", "conv2"):
        assert metrics[f"val/cka_{layer}"] == pytest.approx(1)
        for measure in ("separability", "selectivity", "selective", "label_entropy"):
            before, after = (
                metrics[f"val/{measure}_{when}_{layer}"] for when in ("before", "after")
            )
            assert before == after
    assert metrics["val/separability_after_fc6"] != metrics["val/separability_before_fc6"]
    assert all(0 <= metrics[f"val/label_entropy_after_{name}"] <= 1 for name in numbered(MODEL))


def test_features_are_those_of_the_kept_networks(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CKA of the means that a pass gives, over just the validation images."""
    from jobs.inspection import study

    seen = []
    monkeypatch.setattr(study, "cka", lambda *sides: seen.append(sides) or 0.5)  # type: ignore[func-returns-value]
    completed, context = changes(tmp_path / "run", runs, params(layers=["conv4"]))
    ((before, after),) = seen
    assert before.means.shape == after.means.shape == (32, 48)
    assert (before.peaks >= before.means).all() and (before.peaks > before.means).any()
    assert completed.metrics["val/cka_conv4"] == 0.5
    assert linear_cka(before.means, after.means) < 0.9999
    assert context.places, "it can be left"
    again, other = changes(tmp_path / "again", runs, params(layers=["4"]))
    assert set(again.metrics) == set(completed.metrics)
    assert sum(value for name, value, _ in other.timings if "num_forwards" in name) == 0


def test_training_images_are_another_question(runs: Runs, tmp_path: Path) -> None:
    """Named so, with the same weights; on them the adapted network tells more apart."""
    completed, _ = changes(tmp_path / "run", runs, params(images="train"))
    assert "train/cka_fc6" in completed.metrics and "val/cka_fc6" not in completed.metrics
    assert Changes().primary_metric(params(images="train")) == "train/cka_fc7"
    assert Changes().primary_metric(params(layers=["conv2", "conv1"])) == "val/cka_conv2"


def test_a_linear_classifier_before_and_after(runs: Runs, tmp_path: Path) -> None:
    """Fitted to training images, measured on validation images, whatever else is compared."""
    completed, _ = changes(tmp_path / "run", runs, params(probe=True, images="train"))
    metrics = completed.metrics
    for layer in numbered(MODEL):
        values = [metrics[f"val/probe_{when}_{layer}"] for when in ("before", "after")]
        assert all(value == pytest.approx(round(value * 32) / 32) for value in values)
        assert layer not in ("conv1", "conv2") or values[0] == values[1]
    assert metrics["val/probe_after_fc7"] > 0.5


# --- what is kept -----------------------------------------------------------------------------


def test_arrays_are_kept_with_what_they_mean(found: tuple[Completed, Path]) -> None:
    """Per unit and layer, and the map, under documented names."""
    arrays = load_file(found[1] / ARRAYS)
    with safe_open(found[1] / ARRAYS, "np") as stream:
        told = json.loads(stream.metadata()["ftd"])
    assert told == {"class_names": list("01234567"), "images": "val", "num_images": 32}
    for when in ("before", "after"):
        assert arrays[f"average_precision_{when}/fc6"].shape == (256,)
        assert set(arrays[f"best_class_{when}/fc6"]) <= set(range(8))
        mean = float(arrays[f"average_precision_{when}/fc6"].mean())
        assert found[0].metrics[f"val/selectivity_{when}_fc6"] == pytest.approx(mean)
        assert arrays[f"map_{when}"].shape == (32, 2)
    assert sorted(arrays["map_labels"].tolist()) == sorted([*range(8)] * 4)


def test_pictures_are_kept(found: tuple[Completed, Path], runs: Runs, tmp_path: Path) -> None:
    """Filters, units with their images, a map; each can be done without."""
    for name in (FILTERS, UNITS, MAP):
        with Image.open(found[1] / name) as picture:
            assert picture.format == "PNG" and len(picture.getcolors(1 << 20) or ()) > 8
    wanted = params(pictures={"units": 0, "map_images": 0}, layers=["fc6"])
    _, context = changes(tmp_path / "run", runs, wanted)
    assert {path.name for path in (context.root / "artifacts").iterdir()} == {ARRAYS, FILTERS}


def test_pictures_are_of_what_is_asked_for(runs: Runs, tmp_path: Path) -> None:
    """Number of units and images, layer, and images on the map each make another picture."""
    sizes = {}
    for number, pictures in enumerate(
        ({"units": 2, "images": 3}, {"units": 4, "images": 3}, {"units": 2, "images": 5})
    ):
        wanted = params(pictures=pictures | {"layer": "conv5", "map_images": 12}, layers=["conv5"])
        _, context = changes(tmp_path / str(number), runs, wanted)
        with Image.open(context.root / "artifacts" / UNITS) as picture:
            sizes[number] = picture.size
        arrays = load_file(context.root / "artifacts" / ARRAYS)
        assert len(arrays["map_before"]) == 12
    assert sizes[0][1] < sizes[1][1] and sizes[0][0] < sizes[2][0]


# --- what is refused --------------------------------------------------------------------------


def test_a_network_that_the_run_did_not_start_from_is_refused(runs: Runs, tmp_path: Path) -> None:
    """Its frozen layers tell: they are another source net's."""
    other = finetuned(tmp_path / "other", runs, "none", "R(1-8)", init=99)
    with pytest.raises(WeightsError, match="r2 froze conv1, but kept other weights"):
        changes(tmp_path / "run", Runs({**runs.kept, "r1": other}, runs.store))


def test_images_that_the_run_tested_on_are_refused(runs: Runs, tmp_path: Path) -> None:
    """Another split would show them."""
    with pytest.raises(DataError, match=r"r2 was tested on \d+ of the 32 images to look at"):
        changes(tmp_path / "run", runs, seeds={**streams(1, 0), "split": 5})


def test_another_network_is_refused(runs: Runs, tmp_path: Path) -> None:
    """By its name, before anything is computed."""
    wanted = params(model={"name": "resnet18", "weights": {"run": "r1"}})
    with pytest.raises(WeightsError, match="r2 kept weights of mini8, not of resnet18"):
        changes(tmp_path / "run", runs, wanted)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"model": {"name": MODEL, "weights": "none"}}, "nothing to compare with"),
        ({"layers": ["conv9"]}, "no layer 'conv9'"),
        ({"pictures": {"layer": "fc9"}}, "no layer 'fc9'"),
        ({"target": {**TARGET, "val_per_class": 0}}, "needs validation images"),
        (
            {"target": {**TARGET, "val_per_class": 0}, "images": "train", "probe": True},
            "probe: true needs validation images",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused_at_planning(changed: dict[str, Any], says: str) -> None:
    """Before anything is queued."""
    with pytest.raises(InputError, match=says):
        params(**changed)


# --- exactness --------------------------------------------------------------------------------


def test_everything_that_is_asked_for_is_in_the_key() -> None:
    """Each parameter makes another question; where the layers stand twice does not."""
    job, base = Changes(), params()

    def identity(**changed: Any) -> str:
        return json.dumps(job.identity(params(**changed)), sort_keys=True)

    same = json.dumps(job.identity(base), sort_keys=True)
    for changed in (
        {"images": "train"},
        {"layers": ["conv3"]},
        {"probe": True},
        {"pictures": {"units": 3}},
        {"after": {"run": "r2", "checkpoint": 7}},
        {"model": {"name": MODEL, "weights": {"run": "r1"}, "mean": [0, 0, 0]}},
        {"target": {**TARGET, "per_class": 5}},
    ):
        assert identity(**changed) != same, changed
    assert identity(layers=["conv3"]) == identity(layers=[3, "conv3"])
    assert job.inputs(base)["after"].where == "r2" and job.inputs(base)["weights"].where == "r1"


def test_left_and_killed_anywhere_it_ends_the_same(runs: Runs, tmp_path: Path) -> None:
    """Metrics, arrays and pictures; decoding, passes and measuring are left in their midst."""

    class Comparing(Changes):
        """With runs at hand."""

        def run(self, params: ChangesParams, context: Any) -> Completed:
            context.runs = runs.kept
            return super().run(params, context)

    case = Case(Comparing(), params(layers=["conv3", "fc7"]), tmp_path / "store")
    whole = run_whole(case, tmp_path / "whole")
    assert len(whole.places) >= 5
    assert all(math.isfinite(value) for value in whole.outcome.completed.metrics.values())
    check_ways(case, whole, tmp_path / "ways", every_place(whole))
    for place in (1, 2, 3):  # with nothing in the store: decoding, the pass before, that after
        fresh = Case(Comparing(), case.params, tmp_path / f"store-{place}")
        check_ways(fresh, whole, tmp_path / f"ways-{place}", killed_during_resume([place]))


SPECS = """
experiment: source
job: finetune
model: {name: mini8, weights: none}
layers: "R(1-8)"
target: {dataset: digits, decode_size: 16, test_per_class: 3, val_per_class: 3, per_class: 4}
train: {epochs: 3, batch_size: 20, lr: 0.05}
---
experiment: adapted
job: finetune
model: {name: mini8, weights: {run: source}}
layers: "FT(1-7)R(8)"
target: {dataset: digits, decode_size: 16, test_per_class: 3, val_per_class: 3, per_class: 4}
train: {epochs: 3, batch_size: 20}
factors: {train.lr: [0.003, 0.03]}
---
experiment: changed
job: changes
model: {name: mini8, weights: {run: source}}
after: {run: adapted}
target: {dataset: digits, decode_size: 16, test_per_class: 3, val_per_class: 3, per_class: 4}
factors: {after.cell.train.lr: [0.003, 0.03]}
"""


def test_through_the_daemon_by_the_names_of_experiments(tmp_path: Path) -> None:
    """The runs of each learning rate are found by their level; people find numbers and pictures."""
    home = LiveHome(tmp_path / "home", slots=2)
    for spec in SPECS.split("---"):
        home.enqueue(spec + "seed: 1\n")
    assert home.finish() == 0, home.log()
    assert home.states() == ["done"] * 5
    found = home.json("changes", "changed", "--measure", "relative")["measures"]
    slow, fast = (
        {layer["layer"]: layer["mean"] for layer in one["layers"]}
        for one in sorted(found, key=lambda one: one["factors"]["after.cell.train.lr"])
    )
    assert set(slow) == set(numbered(MODEL)[:-1]) and all(slow[name] < fast[name] for name in slow)
    for artifact in home.json("show", "r4")["artifacts"]:
        assert (home.root / artifact["path"]).is_file()
    assert "map.png" in home.ftd("show", "r4").stdout


def test_poolings_are_those_that_every_pass_computes() -> None:
    """So that runs of other jobs share the pass."""
    from jobs.features.shards import STANDARD
    from jobs.inspection.material import MEANS, PEAKS

    assert {MEANS, PEAKS} <= set(STANDARD) and Pooling() == MEANS
