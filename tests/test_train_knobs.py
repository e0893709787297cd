"""Every parameter of training does something: it makes another run, known by another key.

A parameter that is in no row here fails the last test.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from ftd.errors import InputError
from ftd.explain import models_in
from jobs import recipe as recipes
from jobs.finetune import Finetune, FinetuneParams
from jobs.params.target import TargetParams
from jobs.params.train import TrainParams
from tests.context import FolderContext
from tests.finetuning import params

Change = Mapping[str, Any]
LAYERS = "F(1-17)FT(18)R(19)"
TARGET = {"per_class": 2, "val_per_class": 1, "decode_size": 20, "crop_size": 16}
BASE = {"epochs": 2, "batch_size": 10, "schedule": "constant", "step_size_epochs": None,
        "crop": "none", "flip": False, "keep": "last"}  # fmt: skip
UNFREEZE = {"unfreeze": {"every_steps": 1}}
EARLY = {"early_stop": {"patience_steps": 2, "min_delta": 0}, "epochs": 5, "lr": 0.3}
CROP = {"augment": {"resized_crop": {}}}
RAND = {"augment": {"rand_augment": {}}}
FOUND = {"steps": 8, "lowest": 1e-3, "highest": 1e3}
SEARCH = {"lr_find": FOUND}
STEPWISE = {"schedule": "step", "step_size_steps": 2}
L2_SP = {"l2_sp": {"alpha": 1, "beta": 1}}

# parameter -> what it is added to, and itself
KNOBS: dict[str, tuple[Change, Change]] = {
    "epochs": ({}, {"epochs": 3}),
    "steps": ({}, {"epochs": None, "steps": 3}),
    "batch_size": ({}, {"batch_size": 7}),
    "optimizer": ({}, {"optimizer": "adamw"}),
    "lr": ({}, {"lr": 0.02}),
    "lr_find": ({}, SEARCH),
    "lr_find.lowest": (SEARCH, {"lr_find": {**FOUND, "lowest": 1e-2}}),
    "lr_find.highest": (SEARCH, {"lr_find": {**FOUND, "highest": 0.5}}),
    "lr_find.steps": (SEARCH, {"lr_find": {**FOUND, "steps": 12}}),
    "lr_find.divisor": (SEARCH, {"lr_find": {**FOUND, "divisor": 2}}),
    "head_lr_factor": ({}, {"head_lr_factor": 3}),
    "lr_factors": ({}, {"lr_factors": {"18": 0.1}}),
    "layer_decay": ({}, {"layer_decay": 0.5}),
    "unfreeze": ({}, UNFREEZE),
    "unfreeze.every_steps": (UNFREEZE, {"unfreeze": {"every_steps": 3}}),
    "unfreeze.every_epochs": (UNFREEZE, {"unfreeze": {"every_epochs": 1}}),
    "momentum": ({}, {"momentum": 0.5}),
    "nesterov": ({}, {"nesterov": True}),
    "betas": ({"optimizer": "adamw"}, {"betas": [0.5, 0.9]}),
    "weight_decay": ({}, {"weight_decay": 0.1}),
    "l2_sp": ({}, L2_SP),
    "l2_sp.alpha": (L2_SP, {"l2_sp": {"alpha": 0, "beta": 1}}),
    "l2_sp.beta": (L2_SP, {"l2_sp": {"alpha": 1, "beta": 0}}),
    "clip_norm": ({}, {"clip_norm": 0.1}),
    "label_smoothing": ({}, {"label_smoothing": 0.2}),
    "class_weights": ({}, {"class_weights": {"3": 5}}),
    "sampling": ({"batch_size": 7}, {"sampling": "balanced"}),
    "schedule": ({}, {"schedule": "cosine"}),
    "warmup_steps": ({}, {"warmup_steps": 2}),
    "warmup_epochs": ({}, {"warmup_epochs": 1}),
    "step_size_steps": (STEPWISE, {"step_size_steps": 1}),
    "step_size_epochs": (STEPWISE, {"step_size_steps": None, "step_size_epochs": 0.5}),
    "gamma": (STEPWISE, {"gamma": 0.5}),
    "validate_every_epochs": ({"keep": "best", "lr": 0.3}, {"validate_every_epochs": 2}),
    "flip": ({}, {"flip": True}),
    "crop": ({}, {"crop": "random"}),
    "augment.resized_crop": ({}, CROP),
    "augment.resized_crop.scale": (CROP, {"augment": {"resized_crop": {"scale": [0.5, 0.6]}}}),
    "augment.resized_crop.ratio": (CROP, {"augment": {"resized_crop": {"ratio": [1, 1]}}}),
    "augment.colour": ({}, {"augment": {"colour": {"brightness": 0.4}}}),
    **{
        f"augment.colour.{name}": ({}, {"augment": {"colour": {name: 0.4}}})
        for name in ("brightness", "contrast")  # digits are grey: the others, in test_augment
    },
    "augment.rand_augment": ({}, RAND),
    "augment.rand_augment.num_ops": (RAND, {"augment": {"rand_augment": {"num_ops": 4}}}),
    "augment.rand_augment.magnitude": (RAND, {"augment": {"rand_augment": {"magnitude": 30}}}),
    "augment.mixup": ({}, {"augment": {"mixup": 0.4}}),
    "augment.cutmix": ({}, {"augment": {"cutmix": 1.0}}),
    "batchnorm.frozen": ({}, {"batchnorm": {"frozen": "reestimate"}}),
    "batchnorm.tuned": ({}, {"batchnorm": {"tuned": "stored"}}),
    "batchnorm.group_size": ({}, {"batchnorm": {"group_size": 5}}),
    "micro_batch_size": ({}, {"micro_batch_size": 5}),
    "precision": ({}, {"precision": "bfloat16"}),
    "channels_last": ({}, {"channels_last": "off"}),
    "ema_decay": ({}, {"ema_decay": 0.5}),
    "early_stop": ({"epochs": 5, "lr": 0.3}, EARLY),
    "early_stop.patience_steps": (EARLY, {"early_stop": {"patience_steps": 6}}),
    "early_stop.min_delta": (
        {"early_stop": {"patience_steps": 2}, "epochs": 5},
        {"early_stop": {"patience_steps": 2, "min_delta": 100}},
    ),
    "keep": ({"epochs": 5, "lr": 0.3}, {"keep": "best"}),
    "select": ({"keep": "best", "epochs": 5, "lr": 0.1}, {"select": "val/ece"}),
}
# Those that need another network or coloured images, and the test that is theirs.
ELSEWHERE = {
    "frozen_dropout": "test_train_layers.py::test_frozen_dropout_changes_what_is_learned",
    "test_views": "test_test_views.py::test_the_mean_of_sixteen_looks_is_tested",
    "augment.colour.saturation": "test_augment.py::test_each_colour_alone_changes_a_picture",
    "augment.colour.hue": "test_augment.py::test_each_colour_alone_changes_a_picture",
}


pytestmark = pytest.mark.usefixtures("torch_left_as_found")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where runs of this module are, and their store."""
    return tmp_path_factory.mktemp("runs")


def recipe(base: Change, change: Change) -> FinetuneParams:
    """A run of few steps and layers."""
    return params(layers=LAYERS, target=TARGET, train={**BASE, **base, **change})


@cache
def digest_of(wanted: str, folder: Path) -> str:
    """The kept weights of the run whose parameters are `wanted`, as JSON."""
    root = folder / str(len(list(folder.iterdir())))
    root.mkdir()
    context = FolderContext(root, shared=folder / "store")
    return Finetune().run(FinetuneParams.model_validate_json(wanted), context).state_sha256


@pytest.mark.parametrize("name", KNOBS)
def test_every_knob_makes_another_run(name: str, folder: Path) -> None:
    """With the parameter changed, a run ends with other weights and has another identity."""
    (base, change), job = KNOBS[name], Finetune()
    without, with_it = recipe(base, {}), recipe(base, change)
    assert job.identity(without) != job.identity(with_it)
    found = [digest_of(one.model_dump_json(), folder) for one in (without, with_it)]
    assert found[0] != found[1]


# Layers, and two ways to say the same for them: what is not used makes no other run.
NEW_ONLY, TUNED_ONLY = "F(1-18)R(19)", "FT(1-19)"
SAME: tuple[tuple[str, Change, Change], ...] = (
    (LAYERS, {**SEARCH, "lr": 5.0}, SEARCH),
    (LAYERS, {**L2_SP, "weight_decay": 0.1}, L2_SP),
    (LAYERS, {"micro_batch_size": 10}, {}),
    (LAYERS, {"lr_factors": {"1-17": 0.1}}, {}),
    (LAYERS, {"lr_factors": {"last-1": 0.5}}, {"lr_factors": {"18": 0.5}}),
    (LAYERS, {"augment": {}}, {}),
    (LAYERS, {**CROP, "batchnorm": {}}, CROP),
    (LAYERS, {"select": "val/top1"}, {}),
    (NEW_ONLY, {"layer_decay": 0.5}, {}),
    (NEW_ONLY, UNFREEZE, {}),
    (NEW_ONLY, {"batchnorm": {"tuned": "stored"}}, {}),
    (NEW_ONLY, {"l2_sp": {"alpha": 1, "beta": 1}}, {"l2_sp": {"alpha": 2, "beta": 1}}),
    (TUNED_ONLY, {"l2_sp": {"alpha": 1, "beta": 1}}, {"l2_sp": {"alpha": 1, "beta": 2}}),
    (TUNED_ONLY, {"batchnorm": {"frozen": "reestimate"}}, {}),
    (TUNED_ONLY, {"frozen_dropout": "on"}, {}),
    (
        TUNED_ONLY,
        {"batchnorm": {"tuned": "stored", "group_size": 2}},
        {"batchnorm": {"tuned": "stored"}},
    ),
)


def test_from_scratch_no_weights_are_used() -> None:
    """R(1-) is one run whatever weights are named, reads none, and is not one that tunes."""
    job, found = Finetune(), []
    for weights in ("imagenet", "none", {"file": "/nowhere.pt"}):
        wanted = params(model={"weights": weights}, layers="R(1-)")
        assert wanted.model.weights == "none" and "weights" not in job.inputs(wanted)
        found.append(job.identity(wanted))
    assert found[0] == found[1] == found[2]
    assert found[0] != job.identity(params(layers="FT(1-)"))


@pytest.mark.parametrize(("layers", "one", "other"), SAME, ids=str)
def test_what_is_not_used_makes_no_other_run(layers: str, one: Change, other: Change) -> None:
    """A parameter that these layers, or the other parameters, leave without effect is in no key."""
    job = Finetune()
    found = [
        job.identity(params(layers=layers, target=TARGET, train={**BASE, **change}))
        for change in (one, other)
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"lr_factors": {"conv9": 2}}, "'conv9' means no layer of this network"),
        ({"lr_factors": {"1-3": 2, "2": 1}}, "both mean layer 2"),
        ({"crop": "random", **CROP}, "crop: random or augment.resized_crop"),
        ({"sampling": "balanced", "class_weights": "balanced"}, "balance twice"),
        ({"unfreeze": {}}, "either every_epochs or every_steps"),
        ({"lr_find": {"lowest": 1, "highest": 0.1}}, "lowest must be less than highest"),
        ({"augment": {"resized_crop": {"scale": [0.9, 0.1]}}}, "least, greatest"),
        ({"augment": {"colour": {}}}, "or leave colour out"),
    ],
    ids=str,
)
def test_contradictions_are_refused_when_planned(change: Change, says: str) -> None:
    """What cannot be meant is said before anything is enqueued."""
    with pytest.raises((InputError, ValueError), match=says):
        recipe({}, change)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"class_weights": "balanced"}, "class_weights is for one label per image"),
        ({"sampling": "balanced"}, "sampling: balanced is for one label per image"),
    ],
)
def test_balancing_needs_one_label_per_image(change: Change, says: str) -> None:
    """Targets with several labels per image are told apart when runs are planned."""
    several = TargetParams(dataset="csv", file="x.csv", multi_label=True)
    train = TrainParams.model_validate({"epochs": 1, **change})
    with pytest.raises(InputError, match=says):
        recipes.resolve(train, several, ("a", "b"))


def paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The path of every parameter, sections apart."""
    for name, field in model.model_fields.items():
        inner = models_in(field.annotation)
        if inner != [field.annotation]:
            yield f"{prefix}{name}"
        for found in inner:
            yield from paths(found, f"{prefix}{name}.")


def test_no_knob_is_missing() -> None:
    """Every parameter of training is tried above, or in the test named."""
    assert set(paths(TrainParams)) == {*KNOBS, *ELSEWHERE}
    here = Path(__file__).parent
    for place in ELSEWHERE.values():
        file, _, test = place.partition("::")
        assert f"def {test}(" in (here / file).read_text()
