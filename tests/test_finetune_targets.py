"""Fine-tuning on every kind of target: several labels, unequal classes, merged ones."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from safetensors import safe_open

from ftd.planning.plan import make_plan
from ftd.spec.experiment import parse
from jobs import targets
from jobs.data.digits import digits_listing
from jobs.finetune import Finetune, FinetuneParams
from jobs.params.target import TargetParams
from tests.context import FolderContext
from tests.finetuning import params
from tests.resume import Case, Stop, check_ways, run_whole

LAYERS = "F(1-18)R(19)"


pytestmark = pytest.mark.usefixtures("torch_left_as_found")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 digits as files; labels say whether a digit is even, below 5, or 3; some have none."""
    root = tmp_path_factory.mktemp("digits")
    listing = digits_listing()
    rows = []
    for index, digit in enumerate(listing.labels[:240].tolist()):
        listing.image(listing.content(index)).resize((32, 32), Image.Resampling.BILINEAR).save(
            root / f"{index}.png"
        )
        labels = [("even", digit % 2 == 0), ("low", digit < 5), ("three", digit == 3)]
        rows.append([f"{index}.png", ";".join(name for name, so in labels if so), f"g{index // 2}"])
    with (root / "m.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["path", "label", "group"], *rows])
    return root / "m.csv"


@pytest.fixture(scope="module")
def several(manifest: Path) -> FinetuneParams:
    """Several labels per image."""
    target = {
        "dataset": "csv", "file": str(manifest), "multi_label": True, "val_per_class": None,
        "per_class": None, "test_fraction": 0.3,
    }  # fmt: skip
    train = {"epochs": 4, "batch_size": 32, "select": None, "lr": 0.2}
    return params(target=target, layers=LAYERS, train=train)


def run(root: Path, store: Path, wanted: FinetuneParams) -> tuple[FolderContext, Any]:
    root.mkdir(exist_ok=True)
    context = FolderContext(root, shared=store)
    return context, Finetune().run(wanted, context)


def test_several_labels_are_learned_and_resumed_exactly(
    several: FinetuneParams, store: Path, tmp_path: Path
) -> None:
    """Mean average precision beats chance by far, selects the epoch, and stops change nothing."""
    assert several.train.select == "val/map"
    assert Finetune().primary_metric(several) == "test/map"
    case = Case(Finetune(), several, store)
    whole = run_whole(case, tmp_path / "whole")
    metrics = whole.outcome.completed.metrics
    names = {"map", "map_voc07", "auroc", "micro_f1", "macro_f1", "bce"}
    assert {name for name in metrics if name.startswith("test/")} == {f"test/{n}" for n in names}
    assert metrics["test/map"] > 0.6 and metrics["test/auroc"] > 0.7
    assert metrics["train/loss"] < 0.69 and metrics["train/label_accuracy"] > 0.6
    rows: dict[int, float] = {
        step: value for (name, step), value in whole.outcome.rows.items() if name == "val/map"
    }
    assert metrics["val/map"] == max(rows.values())
    check_ways(case, whole, tmp_path / "ways", [[Stop(3), Stop(5)], [Stop(len(whole.places))]])
    with (tmp_path / "whole/artifacts/predictions.csv").open(newline="") as stream:
        (first, *_) = csv.DictReader(stream)
    assert set(first) == {"id", "split", "label", "predicted", "p(even)", "p(low)", "p(three)"}


def test_groups_stay_together_in_a_run(
    several: FinetuneParams, manifest: Path, store: Path, tmp_path: Path
) -> None:
    """No group is both tested and validated on."""
    context, _ = run(tmp_path, store, several)
    with (context.root / "artifacts/predictions.csv").open(newline="") as stream:
        split_of = [
            (int(row["id"].split(".")[0]) // 2, row["split"]) for row in csv.DictReader(stream)
        ]
    assert len(dict(split_of)) == len(set(split_of)) > 30


@pytest.fixture(scope="module")
def unequal(store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[FolderContext, Any]:
    """A long tail from 20 images to 2."""
    target = {"per_class": 20, "imbalance": {"ratio": 10, "hold": "max"}}
    wanted = params(target=target, layers=LAYERS, train={"epochs": 1, "select": None})
    assert Finetune().primary_metric(wanted) == "test/balanced_accuracy"
    return run(tmp_path_factory.mktemp("unequal"), store, wanted)


def note(context: FolderContext) -> dict[str, Any]:
    (found,) = (data for kind, data in context.notes if kind == "data")
    return found


def test_imbalance_is_measured_by_terciles(unequal: tuple[FolderContext, Any]) -> None:
    """Recall of the classes with most, middling and fewest images, weighed as their classes."""
    context, completed = unequal
    counts = np.array(note(context)["images_per_class"]["train"])
    assert counts.max() == 20 and counts.min() == 2
    with (context.root / "artifacts/classes.json").open() as stream:
        recall = np.array(json.load(stream)["test"]["recall"])
    parts = np.array_split(np.argsort(-counts, kind="stable"), 3)
    for name, classes in zip(("head", "middle", "tail"), parts, strict=True):
        assert completed.metrics[f"test/recall_{name}"] == pytest.approx(recall[classes].mean())


def test_classes_of_the_network_are_those_asked_for(store: Path, tmp_path: Path) -> None:
    """Merged and chosen classes are what the head has and what is counted."""
    classes = {"merge": {"round": ["0", "6", "8", "9"]}, "only": ["round", "1", "7"]}
    wanted = params(
        target={"classes": classes}, layers=LAYERS, train={"epochs": 1, "select": "val/top1"}
    )
    context, completed = run(tmp_path, store, wanted)
    with safe_open(context.root / "artifacts/weights.safetensors", "pt") as stream:
        kept = json.loads(stream.metadata()["ftd"])
        assert stream.get_slice("fc.weight").get_shape()[0] == 3
    assert kept["class_names"] == note(context)["class_names"] == ["round", "1", "7"]
    assert completed.metrics["data/num_train"] == 9


def test_skipped_images_are_the_same_after_a_stop(
    several: FinetuneParams, manifest: Path, tmp_path: Path
) -> None:
    """Left while it decodes or trains, a run that skips and drops images ends the same."""
    for path in manifest.parent.iterdir():
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "images" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "images/3.png").write_bytes(b"no image")
    target = several.target.model_copy(
        update={
            "file": str(tmp_path / "images/m.csv"),
            "folder": str(tmp_path / "images"),
            "corrupt": "skip",
            "duplicates": "drop_from_train",
        }
    )
    train = several.train.model_copy(update={"epochs": 1})
    wanted = several.model_copy(update={"target": target, "train": train})
    case = Case(Finetune(), wanted, tmp_path / "store")
    whole = run_whole(case, tmp_path / "whole")
    assert "skipped.json" in whole.outcome.artifacts
    assert whole.outcome.completed.metrics["data/near_in_train"] == 0
    check_ways(case, whole, tmp_path / "ways", [[Stop(1), Stop(2)], [Stop(3)]])


@pytest.mark.parametrize(
    ("base", "change"),
    [
        ({"dataset": "elpv"}, {"elpv": {"threshold": 0.1}}),
        ({"dataset": "elpv"}, {"elpv": {"uncertain": "drop"}}),
        ({"dataset": "csv", "file": "m.csv"}, {"multi_label": True}),
        ({"dataset": "hf", "folder": "x"}, {"hf": {"image": "photo"}}),
        ({"dataset": "hf", "folder": "x"}, {"hf": {"label": "kind"}}),
        ({"dataset": "digits", "imbalance": {"ratio": 2}, "per_class": 5},
         {"imbalance": {"ratio": 2, "hold": "max"}}),
    ],
    ids=str,
)  # fmt: skip
def test_parameters_of_a_kind_of_target_are_part_of_its_key(
    base: dict[str, Any], change: dict[str, Any]
) -> None:
    """What only some datasets use matters to these."""
    one, other = (TargetParams.model_validate(fields) for fields in (base, {**base, **change}))
    assert targets.identity(one) != targets.identity(other)


SPEC = """
experiment: large
job: finetune
model: {{name: resnet18, weights: none}}
layers: "R(1-last)"
target: {target}
train: {{epochs: 1}}
factors: {{train.lr: [0.1, 0.01]}}
"""


@pytest.mark.parametrize("kind", ["folder", "csv"])
def test_what_is_planned_does_not_grow_with_the_dataset(tmp_path: Path, kind: str) -> None:
    """The ledger is given a digest of the images, never a list of them."""
    sizes = []
    for count in (10, 400):
        root = tmp_path / f"{count:04d}"
        for name in ("a", "b"):
            (root / "images" / name).mkdir(parents=True)
            for index in range(count):
                (root / "images" / name / f"{index}.png").touch()
        lines = [f"images/{name}/{i}.png,{name}\n" for name in ("a", "b") for i in range(count)]
        (root / "m.csv").write_text("path,label\n" + "".join(lines))
        where = f"folder: {root}/images" if kind == "folder" else f"file: {root}/m.csv"
        spec = SPEC.format(target=f"{{dataset: {kind}, {where}}}")
        plan = make_plan(parse(spec, "spec.yaml"), Path("/"), device_kind="cpu")
        sizes.append(sum(len(json.dumps([r.params, r.inputs], default=dict)) for r in plan.runs))
    assert sizes[0] == sizes[1]


def test_a_count_that_blocks_cannot_keep_is_refused_when_planned() -> None:
    """Solar cells, whose split is by blocks unless said otherwise, take no number per class."""
    asked = {"dataset": "elpv", "decode_size": 32, "test_per_class": 20}
    with pytest.raises(ValidationError, match="blocks, elpv's default"):
        TargetParams.model_validate(asked)
    assert TargetParams.model_validate({**asked, "split": "random"}).test_per_class == 20
