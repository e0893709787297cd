"""The job joint: what determines a run, what is learned of borrowed images, exact resumes."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from ftd.errors import DataError, InputError
from ftd.job import Budget, Completed
from ftd.seeds import streams
from jobs.finetune import Finetune
from jobs.joint import Joint, JointParams
from jobs.measure.predict import Classifier
from jobs.params.joint import HardParams, SelectionParams
from jobs.train.step import Stepper
from tests.context import FolderContext
from tests.entries import Situation, check_entries
from tests.growing import random_state
from tests.joining import BASE, IMAGES, LOW, NEAR, params, run
from tests.networks import digest
from tests.resume import (
    Case,
    Kill,
    Stop,
    at_random,
    check_ways,
    killed_during_resume,
    run_in_parts,
    run_whole,
)

pytestmark = pytest.mark.usefixtures("torch_left_as_found")


def kept(context: FolderContext) -> dict[str, torch.Tensor]:
    """The weights that a run kept."""
    return load_file(context.root / "artifacts" / "weights.safetensors")


def plain(root: Path, store: Path, raw: dict[str, Any]) -> Completed:
    """The run of the job finetune with the same parameters."""
    root.mkdir()
    found = {name: value for name, value in raw.items() if name in Finetune.Params.model_fields}
    return Finetune().run(Finetune.Params.model_validate(found), FolderContext(root, shared=store))


# --- results ------------------------------------------------------------------------------------


def test_without_borrowing_it_is_finetune(store: Path, tmp_path: Path) -> None:
    """The control arm is the same run, to the last bit of its weights and metrics."""
    wanted = params(selection={"by": "none"})
    _, completed = run(tmp_path / "none", store, wanted)
    assert completed == plain(tmp_path / "plain", store, wanted.model_dump(mode="json"))


def test_what_a_run_gives(store: Path, tmp_path: Path) -> None:
    """A plain network of the target's classes is kept; the source's loss and top-1 are told."""
    context, completed = run(tmp_path, store, params())
    classifier = Classifier.load(context.root / "artifacts" / "weights.safetensors")
    assert digest(classifier.network.state()) == digest(kept(context))
    assert classifier.network.class_names == ("5", "6", "7", "8", "9")
    assert completed.metrics["borrow/num_pool"] == completed.metrics["borrow/num_selected"] == 60
    assert completed.metrics["train/source_loss"] == pytest.approx(np.log(5), rel=0.2)
    told = {kind: note["class_names"] for kind, note in context.notes if "class_names" in note}
    assert told == {"data": ["5", "6", "7", "8", "9"], "source": ["0", "1", "2", "3", "4"]}
    rows = {step for name, step in context.metrics if name == "train/source_top1"}
    assert rows == {2, 4} and {"test/top1", "val/nll", "train/loss"} <= set(completed.metrics)


def test_what_is_borrowed_is_learned(store: Path, tmp_path: Path) -> None:
    """After some epochs the source's head tells the borrowed images apart."""
    train = {"epochs": 80, "flip": False, "crop": "none", "validate_every_epochs": 80}
    _, completed = run(tmp_path, store, params(train=train))
    assert completed.metrics["train/source_top1"] > 0.6


def test_a_diverged_run_is_at_chance(store: Path, tmp_path: Path) -> None:
    """The source's metrics too."""
    _, completed = run(tmp_path, store, params(train={"lr": 1e30, "epochs": 20}))
    assert completed.flags == ("diverged",)
    assert completed.metrics["train/source_loss"] == np.log(5)
    assert completed.metrics["train/source_top1"] == 0.2


def test_the_target_is_drawn_as_in_finetune(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is borrowed, batches, views, head rows and dropout masks of the target are the same
    bytes as in plain fine-tuning."""
    seen: list[dict[str, Any]] = []
    original = Stepper.take_at

    def watched(self: Stepper, state: Any, batch: Any, factor: float) -> None:
        if state.step == 0:
            before = {name: tensor.clone() for name, tensor in state.network.state().items()}
            seen.append({"weights": digest(before), "batches": []})
        seen[-1]["batches"].append(
            (batch.images.numpy().tobytes(), batch.labels.tolist(), batch.keys.tolist())
        )
        original(self, state, batch, factor)

    monkeypatch.setattr(Stepper, "take_at", watched)
    # dropout is keyed by what is compared, the images' keys, and by the step
    for number, selection in enumerate(({"by": "none"}, {"by": "all"}, RANDOM, NEAR)):
        run(tmp_path / str(number), store, params(selection=selection))
    assert seen[0] == seen[1] == seen[2] == seen[3] and len(seen[0]["batches"]) == 4


def test_the_loss_is_the_weighted_sum_of_both(store: Path, tmp_path: Path) -> None:
    """With nothing but the target counting, joint training is fine-tuning but for rounding; the
    more the source counts, the less is learned of the target in a step."""
    moved = {}
    for weight in (0.0, 0.5, 0.99):
        context, completed = run(tmp_path / str(weight), store, params(source_weight=weight))
        moved[weight] = completed.metrics["train/loss"]
        assert kept(context)
    reference = plain(tmp_path / "plain", store, params().model_dump(mode="json"))
    assert moved[0.0] == pytest.approx(reference.metrics["train/loss"], rel=1e-4)
    assert moved[0.0] < moved[0.5] < moved[0.99]


# --- what determines a run ------------------------------------------------------------------------

RANDOM = {"by": "random", "num_images": 20}
HARD = {"every_steps": 1, "rounds": 3}
LAST = {"keep": "last", "select": None}
HARD_NEAR = {"selection": NEAR, "hard": HARD, "train": {"epochs": 4, **LAST}}
LEVELS = {**HARD, "neighbours": "off", "oversample": "on"}


def near(**changes: Any) -> dict[str, Any]:
    """A selection by descriptors with changes."""
    return {"selection": {**NEAR, **changes}}


def described(**changes: Any) -> dict[str, Any]:
    """A selection by other descriptors."""
    return near(descriptors={**NEAR["descriptors"], **changes})


def hard(**changes: Any) -> dict[str, Any]:
    """The run with rounds of hard images, with changes."""
    return {**HARD_NEAR, "hard": {**HARD, **changes}}


# each changes the kept weights against the second
KNOBS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "selection.by": ({"selection": RANDOM}, {}),
    "selection.by balanced_random": (
        {"selection": {**RANDOM, "by": "balanced_random"}}, {"selection": RANDOM}
    ),
    "selection.by descriptors": (near(), {"selection": {**NEAR, "by": "random"}}),
    "selection.neighbours": (near(neighbours=4), near()),
    "selection.neighbours random": (
        near(by="random", neighbours=2), near(by="random")
    ),
    "selection.num_images": (
        {"selection": {**RANDOM, "num_images": 30}}, {"selection": RANDOM}
    ),
    "selection.descriptors": (described(bins=9), near()),
    "selection.least_per_class": (near(least_per_class=8), near()),
    "source": ({"source": {"per_class": 11}}, {}),
    "more_sources": (
        {"more_sources": [{**BASE["source"], "dataset": "mnist5k", "per_class": 5}]}, {},
    ),
    "hard": (hard(), {**HARD_NEAR, "hard": None}),
    "hard.every_steps": (hard(every_steps=3), hard()),
    "hard.rounds": (hard(rounds=1, wrong=1), hard(wrong=1)),
    "hard.wrong": (hard(wrong=1), hard()),
    "hard.uncertain": (hard(uncertain=5), hard(uncertain=0)),
    "hard.delta": (hard(delta=3.0, uncertain=9), hard(uncertain=9)),
    "hard.cap": (hard(cap=2), hard()),
    "hard.predictions": (hard(rounds=1, predictions="cross_fitted"), hard(rounds=1)),
    "hard.folds": (
        {**hard(predictions="cross_fitted", folds=2, delta="median", rounds=1),
         "target": {"per_class": 6}},
        {**hard(predictions="cross_fitted", folds=6, delta="median", rounds=1),
         "target": {"per_class": 6}},
    ),
    "hard.neighbours": (hard(oversample="on"), {**HARD_NEAR, "hard": LEVELS}),
    "hard.oversample": (hard(oversample="on"), hard()),
    "source_weight": ({"source_weight": 0.3}, {}),
    "balance": (
        {"balance": "on", "train": {"batch_size": 5, **LAST}, "target": {"per_class": 8}},
        {"train": {"batch_size": 5, **LAST}, "target": {"per_class": 8}},
    ),
    "batch_norm": (
        {"model": {"name": "resnet18"}, "layers": "R(1-)", "batch_norm": "separate",
         "target": {"decode_size": 36, "crop_size": 32},
         "source": {"decode_size": 36, "crop_size": 32}},
        {"model": {"name": "resnet18"}, "layers": "R(1-)",
         "target": {"decode_size": 36, "crop_size": 32},
         "source": {"decode_size": 36, "crop_size": 32}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("knob", KNOBS)
def test_every_knob_makes_another_run(knob: str, store: Path, tmp_path: Path) -> None:
    """Each parameter is in the key, and changes the kept weights."""
    one, other = (params(**changes) for changes in KNOBS[knob])
    assert Joint().identity(one) != Joint().identity(other) and json.dumps(Joint().identity(one))
    found = [
        run(tmp_path / name, store, wanted)[1] for name, wanted in (("one", one), ("other", other))
    ]
    assert found[0].state_sha256 != found[1].state_sha256


def test_no_knob_is_missing_above() -> None:
    """Every parameter of the job's own is tried."""
    names = {name.partition(" ")[0] for name in KNOBS}
    own = set(JointParams.model_fields) - set(Finetune.Params.model_fields) - {"selection"}
    own |= {f"selection.{name}" for name in SelectionParams.model_fields}
    own |= {f"hard.{name}" for name in HardParams.model_fields}
    assert names == own - {"selection.held_out"}, "which is tried below"


def test_what_cannot_matter_is_no_part_of_the_key() -> None:
    """Without borrowing nobody reads the source; a number of images is for random ones."""
    nothing = params(selection={"by": "none"})
    other = params(
        selection={"by": "none", "num_images": 3}, source={"per_class": 7}, source_weight=0.1
    )
    assert Joint().identity(nothing) == Joint().identity(other)
    assert set(Joint().inputs(nothing)) == set(Finetune().inputs(nothing))
    assert set(Joint().inputs(params())) == {*Finetune().inputs(nothing), "source"}
    for one, two in (
        ({"by": "all", "num_images": 4}, {"by": "all", "neighbours": 7}),
        ({**RANDOM, "neighbours": 7}, {**RANDOM, "descriptors": {"bins": 7}}),
        ({**NEAR, "num_images": 7}, NEAR),
        ({**NEAR, "least_per_class": 1}, NEAR),
    ):
        found = [Joint().identity(params(selection=selection)) for selection in (one, two)]
        assert found[0] == found[1]
    folds = [Joint().identity(params(**hard(folds=folds))) for folds in (2, 5)]
    assert folds[0] == folds[1]


def test_descriptors_are_of_the_jobs_own_network_or_of_another(tmp_path: Path) -> None:
    """The files of both are inputs; those of another are told apart."""
    weights = tmp_path / "weights.safetensors"
    save_file(random_state("mini8"), weights)
    model = {"name": "mini8", "weights": {"file": str(weights)}}
    own = params(model=model, layers="FT(1-7)R(8)", selection=NEAR)
    assert own.selection.descriptors.model == own.model
    other = params(**described(model=model))
    assert {"descriptors weights"} == set(Joint().inputs(other)) - set(Joint().inputs(params()))
    assert Joint().identity(other) != Joint().identity(params(selection=NEAR))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"source": {"decode_size": 24}}, "source.decode_size is 24"),
        ({"source": {"crop_size": 18}}, "source.crop_size is 18"),
        ({"train": {"lr_find": {}}}, "the target's loss alone"),
        ({"train": {"batchnorm": {"group_size": 4}}}, "part the target's images"),
        ({"hard": HARD}, "knows no neighbours"),
        ({"hard": LEVELS, "train": {"sampling": "balanced"}}, "how often an image is drawn"),
        (
            {"more_sources": [{"dataset": "elpv", "decode_size": 24}]},
            r"more_sources\[0\].decode_size is 24, and target.decode_size 20",
        ),
        (
            {"more_sources": [IMAGES | {"per_class": 4, "imbalance": {"ratio": 2, "hold": "max"}}]},
            r"more_sources\[0\].imbalance",
        ),
        ({"more_sources": [{"dataset": "folder", "folder": "/gone"}]}, r"more_sources\[0\].folder"),
    ],
)
def test_what_cannot_work_is_refused_when_planned(changes: dict[str, Any], says: str) -> None:
    """Contradictions between target, source and training are found before anything is enqueued."""
    with pytest.raises(InputError, match=says):
        params(**changes)
    params(**changes, selection={"by": "none"})
    with pytest.raises(ValidationError, match="leave nothing to do"):
        params(hard={**HARD, "neighbours": "off"})


def test_rounds_that_never_come_are_refused() -> None:
    """An arm with hard images that is one without would compare a thing with itself."""
    train = {"epochs": None, "steps": 4}
    with pytest.raises(InputError, match="first round is to come after step 4, and training has 4"):
        params(selection=NEAR, train=train, hard={**HARD, "every_steps": 4})
    params(selection=NEAR, train=train, hard={**HARD, "every_steps": 3})


def test_what_describes_images_takes_their_size(tmp_path: Path) -> None:
    """A network for descriptors that takes another size is told how to get it."""
    with pytest.raises(InputError, match="vit_b_16 takes images of 224 pixels") as caught:
        params(**described(model={"name": "vit_b_16", "weights": "none"}))
    assert caught.value.where == "selection.descriptors.size"
    assert params(**described(model={"name": "vit_b_16", "weights": "none"}, size=224))


def test_several_labels_per_image_are_refused(tmp_path: Path) -> None:
    """Whether they are the target's or the source's."""
    manifest = tmp_path / "many.csv"
    manifest.write_text("path,label\na.png,x;y\nb.png,y\n")
    many = {"dataset": "csv", "file": str(manifest), "multi_label": True, "classes": {}}
    alone = {"per_class": None, "val_per_class": None}
    for name in ("target", "source"):
        with pytest.raises(InputError, match="one label per image") as caught:
            params(**{name: {**many, **alone}})
        assert caught.value.where == name


def test_more_than_there_is_is_refused_when_run(store: Path, tmp_path: Path) -> None:
    """How large the pool is, is known when its images are."""
    with pytest.raises(DataError, match="there are 60"):
        run(tmp_path, store, params(selection={"by": "random", "num_images": 61}))


def test_a_budget_counts_the_borrowed_images_where_it_says_so() -> None:
    """Of total images half are borrowed; target images, steps and epochs are the target's."""
    raw = {**BASE, "train": {"batch_size": 8}}
    for match, selection, steps in (
        ("total_images", "all", 7), ("total_images", "none", 13), ("target_images", "all", 13),
        ("steps", "all", 100),
    ):  # fmt: skip
        budget = Budget(match=match, value=100)
        found = Joint().with_budget({**raw, "selection": {"by": selection}}, budget)
        assert found["train"]["steps"] == steps
    assert Joint().labels_used(params()) == "3 per class, val 1 per class + pool 12 per class"
    assert Joint().labels_used(params(selection={"by": "none"})) == "3 per class, val 1 per class"


# --- left and killed anywhere -------------------------------------------------------------------


@pytest.mark.parametrize("predictions", ["none", "training", "cross_fitted"])
def test_left_anywhere_it_ends_the_same(predictions: str, store: Path, tmp_path: Path) -> None:
    """Left or killed anywhere, also inside a round, a run ends with the same weights, metrics and
    files."""
    train = {"ema_decay": 0.5, "l2_sp": {"alpha": 0.1, "beta": 0.1}, "micro_batch_size": 3}
    sections: dict[str, Any] = {"train": train, "balance": "on"}
    if predictions != "none":
        sections |= hard(predictions=predictions, oversample="on", delta="median", wrong=1)
        sections["train"] = {**train, "epochs": 4}
    case = Case(Joint(), params(**sections), store)
    whole = run_whole(case, tmp_path / "whole")
    if predictions != "none":
        rounds = {step for name, step in whole.outcome.rows if name == "borrow/num_wrong"}
        assert rounds == {2, 4, 6}
    inside = [number for number, step in enumerate(whole.places, start=1) if step == 2]
    places = sorted({*range(1, len(whole.places) + 1, 6), *inside})
    check_ways(case, whole, tmp_path / "ways", [[Stop(place)] for place in places])
    check_ways(case, whole, tmp_path / "again", killed_during_resume(inside[-2:]))
    check_ways(case, whole, tmp_path / "random", at_random(whole, seed=7, num_ways=2))


def test_killed_while_it_looks_for_neighbours(store: Path, tmp_path: Path) -> None:
    """What is not in the store yet is computed again, and the run ends the same."""
    case = Case(Joint(), params(selection=NEAR, train={"epochs": 1}), store)
    whole = run_whole(case, tmp_path / "whole")
    fresh = replace(case, store=tmp_path / "store")
    places = run_whole(fresh, tmp_path / "fresh").places
    before = [number for number, step in enumerate(places, start=1) if step == 0]
    assert len(before) > 8, "decoding, fitting bins, describing, searching"
    for number, place in enumerate(before[2::3]):
        again = replace(case, store=tmp_path / f"store-{number}")
        found = run_in_parts(again, tmp_path / str(number), [Kill(place), Stop(place)])
        assert not whole.outcome.difference(found)


def test_every_entry_of_a_checkpoint_matters(store: Path, tmp_path: Path) -> None:
    """The source's head, its momentum and its sums, levels and rounds are needed there."""
    weights = tmp_path / "weights.safetensors"
    save_file(random_state("mini8"), weights)
    model = {"name": "mini8", "weights": {"file": str(weights)}}

    def case_of(**train: Any) -> Case:
        wanted = params(
            model=model, layers="F(1-7)R(8)", target={"per_class": 1}, source={"per_class": 2},
            selection={**NEAR, "neighbours": 2}, hard={"every_steps": 2, "rounds": 2},
            train={"batch_size": 3, "epochs": 3, **train},
        )  # fmt: skip
        return Case(Joint(), wanted, store)

    last_best, first_best = case_of(), case_of(lr=0.6, schedule="constant")
    run_whole(last_best, tmp_path / "first")  # with all neighbours in the store, places are fewer
    wholes = [run_whole(case, tmp_path / str(n)) for n, case in enumerate((last_best, first_best))]
    assert "test_last/nll" in wholes[1].outcome.completed.metrics
    situations = [
        Situation(last_best, wholes[0], wholes[0].places.index(5) + 1),
        Situation(first_best, wholes[1], wholes[1].places.index(5) + 1),
        Situation(last_best, wholes[0], wholes[0].places.index(4) + 1),
        Situation(last_best, wholes[0], len(wholes[0].places)),
    ]
    assert check_entries(situations, tmp_path / "entries") >= 3


# --- the pool -----------------------------------------------------------------------------------


def test_what_the_target_is_tested_on_is_not_borrowed(store: Path, tmp_path: Path) -> None:
    """Images of the pool that show a test or validation image are left out and counted; reported
    alone, they stay, and that is another run."""
    images = {**IMAGES, "test_fraction": 0.3, "val_per_class": 4, "per_class": None}
    sections: dict[str, Any] = {
        "target": {**images, "per_class": 3, "classes": {"only": LOW}},
        "source": {**images, "val_per_class": 0, "classes": {"only": LOW}},
    }
    train = {"epochs": 1}
    context, dropped = run(tmp_path / "drop", store, params(**sections, train=train))
    (note,) = [told for kind, told in context.notes if kind == "held out in the pool"]
    assert note["identical"] > 100 and note["of_test"] > note["of_val"] > 0 and note["examples"]
    left_out = note["identical"] + note["near"]
    assert dropped.metrics["borrow/num_identical_to_held_out"] == note["identical"]
    pool = dropped.metrics["borrow/num_pool"]
    assert dropped.metrics["borrow/num_selected"] == pool - left_out
    reporting = params(**sections, train=train, selection={"by": "all", "held_out": "report"})
    _, reported = run(tmp_path / "report", store, reporting)
    assert reported.metrics["borrow/num_selected"] == pool
    assert "saw_held_out" in reported.flags and "saw_held_out" not in dropped.flags
    assert reported.state_sha256 != dropped.state_sha256
    assert "held_out" in Joint().identity(reporting)["selection"]


def test_neighbours_are_kept_to_be_looked_at(store: Path, tmp_path: Path) -> None:
    """A table of who borrows of whom at the end, and pictures of some."""
    context, completed = run(tmp_path, store, params(**HARD_NEAR))
    with (tmp_path / "artifacts" / "neighbours.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 15 and {row["class"] for row in rows} == {"5", "6", "7", "8", "9"}
    levels = [int(row["level"]) for row in rows]
    assert np.mean(levels) == completed.metrics["borrow/mean_level"] > 1
    assert [int(row["num_neighbours"]) for row in rows] == [5 * level for level in levels]
    for row in rows:
        distances = [float(row[f"distance_{rank}"]) for rank in range(1, 11)]
        assert distances == sorted(distances) and row["neighbour_1"] != row["neighbour_2"]
    with Image.open(tmp_path / "artifacts" / "neighbours.png") as picture:
        assert picture.width > 9 * 72 and picture.height > 12 * 72
    selected = {step: v for (n, step), v in context.metrics.items() if n == "borrow/num_selected"}
    assert selected[2] < selected[6] and completed.metrics["borrow/num_selected"] == selected[6]


def test_random_images_are_as_many_as_neighbours_would_be(store: Path, tmp_path: Path) -> None:
    """So that arms differ in which images are borrowed, not in how many."""
    found = [
        run(tmp_path / by, store, params(**near(by=by)))[1].metrics["borrow/num_selected"]
        for by in ("descriptors", "random", "balanced_random")
    ]
    assert found[0] == found[1] == found[2] < 60


def test_resuming_draws_the_same_whoever_borrows(store: Path, tmp_path: Path) -> None:
    """Another replicate borrows others, the same one the same."""
    found = [
        run(tmp_path / str(n), store, params(), seeds=streams(1, replicate))[1].state_sha256
        for n, replicate in enumerate((0, 0, 1))
    ]
    assert found[0] == found[1] != found[2]
