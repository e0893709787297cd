"""The job finetune: what determines a run, honest selection, odd endings."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from PIL import Image
from safetensors.torch import load_file

from ftd.errors import DataError, InputError
from ftd.files import MANIFEST
from ftd.job import Completed, Stopped
from ftd.seeds import streams
from jobs.finetune import Finetune, FinetuneParams
from jobs.measure.digest import state_sha256
from jobs.models.weights import load
from jobs.train.state import FILES, TENSORS
from tests.context import FolderContext
from tests.finetuning import BASE, LAYERS, params

# Its learning rate is far too high, so that the first epoch is its best.
OVERSHOOTING = params(train={"lr": 0.1, "schedule": "constant", "step_size_epochs": None})


pytestmark = pytest.mark.usefixtures("torch_left_as_found")


@pytest.fixture(scope="module")
def whole(store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[FolderContext, Completed]:
    """The base run, uninterrupted."""
    context = FolderContext(tmp_path_factory.mktemp("whole"), shared=store)
    return context, Finetune().run(params(), context)


Whole = tuple[FolderContext, Completed]


def run(root: Path, store: Path, wanted: FinetuneParams, **fields: Any) -> Whole:
    """Run to the end in `root`."""
    root.mkdir(exist_ok=True)
    context = FolderContext(root, shared=store, **fields)
    return context, Finetune().run(wanted, context)


def test_a_checkpoint_holds_no_frozen_layer(store: Path, tmp_path: Path) -> None:
    """Frozen layers come from the pretrained weights, not from the checkpoint."""
    with pytest.raises(Stopped):
        run(tmp_path, store, params(), stop_at=9)
    (folder,) = tmp_path.glob("checkpoint-*")
    names = {name.partition("/")[2] for name in load_file(folder / TENSORS)}
    assert {path.name for path in folder.iterdir()} == {*FILES, MANIFEST}
    assert "fc.weight" in names and "blocks.15.bn1.running_mean" in names
    assert not any(name.startswith(("conv_stem", "blocks.0.", "blocks.14.")) for name in names)


# --- results ----------------------------------------------------------------------------------


@cache
def published() -> dict[str, torch.Tensor]:
    """The pretrained weights."""
    state = load("efficientnet_lite0", "imagenet", allow_downloads=False)
    assert state is not None
    return state


def test_what_a_run_gives(whole: Whole) -> None:
    """Metrics of the kept weights, rows of every epoch, weights with the recorded digest."""
    context, completed = whole
    assert completed.num_steps == 12 and completed.flags == ()
    names = {"top1", "top5", "balanced_accuracy", "macro_f1", "auroc", "map", "map_voc07", "nll",
             "ece", "brier"}  # fmt: skip
    kept = {name for name in completed.metrics if not name.startswith("test_last/")}
    assert kept == {f"{split}/{name}" for split in ("val", "test") for name in names} | {
        "train/loss",
        "train/top1",
        "data/num_train",
        "data/num_val",
        "data/num_test",
        "data/identical_in_train",
        "data/near_in_train",
    }
    assert completed.metrics["data/num_train"] == 30 and completed.metrics["data/num_val"] == 20
    assert {step for name, step in context.metrics if name == "val/nll"} == {4, 8, 12}
    assert completed.metrics["val/nll"] == min(
        value for (name, _), value in context.metrics.items() if name == "val/nll"
    )
    assert {step for name, step in context.metrics if name.startswith("test")} == {12}
    weights = context.root / "artifacts" / "weights.safetensors"
    assert state_sha256(load_file(weights)) == completed.state_sha256
    with safetensors.safe_open(weights, "pt") as stream:
        metadata = json.loads(stream.metadata()["ftd"])
    assert metadata["model"] == "efficientnet_lite0" and metadata["layers"] == LAYERS
    assert metadata["class_names"] == list("0123456789")
    assert metadata["preprocessing"]["size"] == 32
    assert [name for name, _, _ in context.timings] == [
        *["train/images_per_s"] * 3,
        "peak_memory_bytes",
    ]
    assert context.shown[-1]["num_steps"] == 12


def test_predictions_are_those_of_the_kept_weights(whole: Whole) -> None:
    """The predictions' table gives back the recorded top-1 of both splits."""
    context, completed = whole
    with (context.root / "artifacts" / "predictions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for split in ("val", "test"):
        right = [row["label"] == row["predicted"] for row in rows if row["split"] == split]
        assert sum(right) / len(right) == pytest.approx(completed.metrics[f"{split}/top1"])
    assert len({row["id"] for row in rows}) == len(rows) == 20 + 36


def test_frozen_layers_are_untouched(whole: Whole) -> None:
    """Parameters and buffers of frozen layers leave the run as they were published."""
    kept = load_file(whole[0].root / "artifacts" / "weights.safetensors")
    frozen = [name for name in kept if name.startswith(("conv_stem", "bn0"))] + [
        name for name in kept if name.startswith("blocks.") and int(name.split(".")[1]) < 15
    ]
    assert len(frozen) > 200
    assert all(torch.equal(kept[name], published()[name]) for name in frozen)
    assert not torch.equal(
        kept["blocks.15.bn1.running_mean"], published()["blocks.15.bn1.running_mean"]
    )


def test_the_same_seed_again_and_another(whole: Whole, store: Path, tmp_path: Path) -> None:
    """The same seeds give the same run; another replicate gives another one."""
    assert run(tmp_path / "a", store, params())[1] == whole[1]
    other = run(tmp_path / "b", store, params(), seeds=streams(1, 1))[1]
    assert other.state_sha256 != whole[1].state_sha256


def test_the_last_weights_are_tested_apart(store: Path, tmp_path: Path) -> None:
    """When another epoch's weights are kept, the last ones have metrics under their own name."""
    context, completed = run(tmp_path / "best", store, OVERSHOOTING)
    rows = {step: v for (name, step), v in context.metrics.items() if name == "val/nll"}
    assert min(rows, key=lambda step: rows[step]) < 12, "the example must not end with its best"
    assert completed.metrics["test_last/nll"] != completed.metrics["test/nll"]
    train = OVERSHOOTING.train.model_copy(update={"keep": "last"})
    last = run(tmp_path / "last", store, OVERSHOOTING.model_copy(update={"train": train}))[1]
    assert last.metrics["test/nll"] == completed.metrics["test_last/nll"]
    assert "test_last/nll" not in last.metrics


def save_folder(root: Path, swap_test: bool) -> None:
    """Two colours of noise as train, val and test; with `swap_test` the test's labels are wrong."""
    for split, count in (("train", 6), ("val", 4), ("test", 4)):
        for name in ("blue", "red"):
            folder = root / split / name
            folder.mkdir(parents=True)
            shown = {"blue": "red", "red": "blue"}[name] if swap_test and split == "test" else name
            for index in range(count):
                noise = Image.effect_noise((40, 40), 90 + 7 * index)
                image = Image.blend(noise.convert("RGB"), Image.new("RGB", (40, 40), shown), 0.2)
                image.save(folder / f"{index}.png")


def test_test_images_influence_nothing(store: Path, tmp_path: Path) -> None:
    """With wrong labels on all test images the same weights are selected and kept."""
    results = []
    save_folder(tmp_path / "right", swap_test=False)
    # the same pixels, but for the test, whose classes are exchanged
    save_folder(tmp_path / "wrong", swap_test=True)
    for split in ("train", "val"):
        for path in (tmp_path / "right" / split).rglob("*.png"):
            place_of = tmp_path / "wrong" / path.relative_to(tmp_path / "right")
            place_of.write_bytes(path.read_bytes())
    for name in ("right", "wrong"):
        folder = {"dataset": "folder", "folder": str(tmp_path / name), "val_per_class": None}
        context, completed = run(
            tmp_path / f"run-{name}",
            store,
            params(target={**folder, "per_class": 6}, train={"epochs": 4, "select": "val/top1"}),
        )
        val = {key: v for key, v in context.metrics.items() if not key[0].startswith("test")}
        results.append((completed.state_sha256, val, completed.metrics["test/auroc"]))
    assert results[0][:2] == results[1][:2]
    assert results[0][2] != results[1][2]


def test_a_diverged_run_is_a_result(store: Path, tmp_path: Path) -> None:
    """A loss that is no longer finite ends the run early, at chance and with a flag."""
    context, completed = run(
        tmp_path, store, params(train={"lr": 1e30, "epochs": 20, "keep": "last"})
    )
    assert completed.flags == ("diverged",) and completed.num_steps < 80
    assert completed.metrics["test/top1"] == completed.metrics["val/top1"] == pytest.approx(0.1)
    assert context.metrics["test/top1", completed.num_steps] == pytest.approx(0.1)


def test_a_stuck_run_is_flagged(store: Path, tmp_path: Path) -> None:
    """A run that cannot tell its training images apart says so."""
    for name in ("a", "b"):
        folder = tmp_path / "images" / name
        folder.mkdir(parents=True)
        for index in range(12):
            Image.new("RGB", (36, 36), "grey").save(folder / f"{index}.png")
    wanted = params(
        target={"dataset": "folder", "folder": str(tmp_path / "images"), "test_fraction": 0.25},
        train={"lr": 1e-9},
    )
    completed = run(tmp_path / "run", store, wanted)[1]
    assert completed.flags == ("stuck",)
    assert completed.metrics["test/auroc"] == 0.5


def test_training_learns(store: Path, tmp_path: Path) -> None:
    """A few epochs on digits beat chance by far."""
    wanted = params(target={"per_class": 20}, train={"epochs": 4}, layers="F(1-last-1)R(last)")
    completed = run(tmp_path, store, wanted)[1]
    assert completed.metrics["test/top1"] > 0.4 and completed.flags == ()


# --- parameters -------------------------------------------------------------------------------


def test_planning_loads_neither_torch_nor_numpy() -> None:
    """Validating, resolving and keying runs needs no heavy import."""
    script = (
        "import sys; from pathlib import Path; from jobs.finetune import Finetune;"
        "job = Finetune();"
        f"p = job.resolve(job.Params.model_validate({BASE!r}), Path());"
        "job.identity(p), job.inputs(p), job.primary_metric(p);"
        "sys.exit(bool({'torch', 'torchvision', 'numpy', 'PIL'} & set(sys.modules)))"
    )
    root = Path(__file__).parent.parent
    assert subprocess.run([sys.executable, "-c", script], cwd=root, check=False).returncode == 0


def test_resolving_twice_and_through_json() -> None:
    """Resolved parameters are complete: resolving and storing them changes nothing."""
    job, resolved = Finetune(), params()
    assert resolved.layers == LAYERS and resolved.target.split == "random"
    assert resolved.target.crop_size == 32 and params().train.select == "val/nll"
    assert job.resolve(resolved, Path("/elsewhere")) == resolved
    assert job.Params.model_validate(json.loads(resolved.model_dump_json())) == resolved


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"layers": "F(1-last-1)R(last)"}, {"layers": "R(19)F(1-18)"}),
        (
            {"layers": "F(1-18)R(19)", "train": {"lr": 0.5, "head_lr_factor": 1}},
            {"layers": "F(1-18)R(19)", "train": {"lr": 0.25, "head_lr_factor": 2}},
        ),
        (
            {"layers": "FT(1-19)", "train": {"head_lr_factor": 1}},
            {"layers": "FT(1-19)", "train": {"head_lr_factor": 9}},
        ),
        ({"train": {"betas": [0.5, 0.5]}}, {}),
        ({"train": {"optimizer": "adamw", "momentum": 0.1}}, {"train": {"optimizer": "adamw"}}),
        ({"target": {"elpv": {"threshold": 0.1}}}, {}),
        ({"target": {"hf": {"image": "x"}}}, {}),
        (
            {"target": {"test_per_class": 2, "test_fraction": 0.1}},
            {"target": {"test_per_class": 2, "test_fraction": 0.2}},
        ),
        (
            {"target": {"classes": {"only": ["1", "2"], "merge": {"x": ["3", "4"]}}}},
            {"target": {"classes": {"only": ["2", "1"], "merge": {"x": ["4", "3"]}}}},
        ),
        ({"target": {"val_fraction": 0.4}}, {}),
        ({"target": {"crop_size": 36}}, {"target": {"crop_size": 36}, "train": {"crop": "none"}}),
        ({"train": {"keep": "last", "select": "val/top1"}}, {"train": {"keep": "last"}}),
        ({"model": {"mean": [0.5, 0.5, 0.5]}}, {}),
    ],
)
def test_what_cannot_matter_is_no_part_of_the_identity(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    """Parameters that this run does not use do not make it another run."""
    job = Finetune()
    assert job.identity(params(**one)) == job.identity(params(**other))


@pytest.mark.parametrize(
    "change",
    [
        {"layers": "F(1-15)FT(16-18)R(19)"},
        {"model": {"weights": "none"}, "layers": "R(1-19)"},
        {"model": {"mean": [0.4, 0.5, 0.5]}},
        {"model": {"interpolation": "bilinear"}},
        *({"target": {key: value}} for key, value in {
            "decode_size": 40, "crop_size": 30, "split": "blocks", "test_fraction": 0.3,
            "val_per_class": 3, "per_class": None, "test_per_class": 2, "test_count": 40,
            "imbalance": {"ratio": 2}, "duplicates": "drop_from_train", "corrupt": "skip",
            "classes": {"only": ["1", "2"]},
        }.items()),
        *({"target": {"val_per_class": None, **change}} for change in (
            {"val_count": 30}, {"val_fraction": 0.4}
        )),
        *({"target": {"per_class": None, **change}} for change in (
            {"num_images": 30}, {"train_fraction": 0.5}
        )),
        *({"target": {"classes": change}} for change in (
            {"merge": {"even": ["0", "2"]}}, {"drop": ["3"]}, {"num_classes": 3}
        )),
        *({"train": {key: value}} for key, value in {
            "epochs": 4, "batch_size": 9, "optimizer": "adamw", "lr": 0.02, "head_lr_factor": 3,
            "momentum": 0.5, "nesterov": True, "weight_decay": 0.1, "warmup_steps": 3,
            "step_size_epochs": 1, "gamma": 0.5, "flip": False, "crop": "none", "keep": "last",
            "select": "val/top1", "validate_every_epochs": 2,
        }.items()),
    ],
    ids=str,
)  # fmt: skip
def test_what_matters_is_part_of_the_identity(change: dict[str, Any]) -> None:
    """Every parameter that this run uses makes another run of it."""
    job = Finetune()
    base = job.identity(params())
    identity = job.identity(params(**change))
    assert identity != base
    assert json.loads(json.dumps(identity)) != json.loads(json.dumps(base))


def test_where_images_are_is_no_part_of_the_identity(tmp_path: Path) -> None:
    """Images are known by what they are (an input), not by their path."""
    job = Finetune()
    found = []
    for name in ("here", "there"):
        (tmp_path / name / "a").mkdir(parents=True)
        wanted = params(target={"dataset": "folder", "folder": str(tmp_path / name)})
        assert job.inputs(wanted)["target"].where == str(tmp_path / name)
        found.append(job.identity(wanted))
    assert found[0] == found[1]


def test_paths_start_at_the_spec(tmp_path: Path) -> None:
    """A relative folder is looked for beside the spec, and its own split is noticed."""
    job = Finetune()
    for split in ("train", "test"):
        (tmp_path / "data" / split).mkdir(parents=True)
    raw = {**BASE, "target": {"dataset": "folder", "folder": "data"}}
    resolved = job.resolve(job.Params.model_validate(raw), tmp_path)
    assert resolved.target.folder == str(tmp_path / "data")
    assert resolved.target.split == "given"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"layers": "F(1-19)"}, "nothing to train"),
        ({"model": {"weights": "none"}}, "no pretrained weights"),
        ({"target": {"val_per_class": 0}}, "keep: best needs validation"),
        ({"target": {"dataset": "folder", "folder": "/nowhere"}}, "/nowhere"),
    ],
)
def test_what_cannot_work_is_refused_when_planned(change: dict[str, Any], says: str) -> None:
    """Contradictions are found before anything is enqueued."""
    with pytest.raises(InputError, match=says):
        params(**change)


def test_too_many_images_are_refused_when_run(store: Path, tmp_path: Path) -> None:
    """A dataset that has not enough images says which class, how many wanted, how many there."""
    with pytest.raises(DataError, match=r"per_class: 500 asked for, but class \d has only \d+"):
        run(tmp_path, store, params(target={"per_class": 500}))


def test_selection_by_a_metric_that_the_target_has_not(store: Path, tmp_path: Path) -> None:
    """What is selected by must exist for this kind of target; what does is named."""
    with pytest.raises(DataError, match=r"no val/bce .*10 classes.* Use one of val/auroc"):
        run(tmp_path, store, params(train={"select": "val/bce"}))
