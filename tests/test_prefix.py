"""Networks behind their frozen beginnings: the same as whole ones, with that computed once."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ftd.job import Completed
from jobs.data.batches import Batch
from jobs.finetune import Finetune
from jobs.measure.predict import Classifier
from jobs.measure.predictions import Predictions
from jobs.models.network import Network
from jobs.models.prefix import Rest, frozen_prefix
from jobs.sources import PREDICTIONS, WEIGHTS
from jobs.train import frozen_prefix as training_prefix
from jobs.train import whole
from jobs.train.frozen_prefix import MOST_TIMES_PIXELS
from jobs.train.loop import Training
from jobs.train.state import TrainingState
from tests import growing, joining
from tests.context import FolderContext
from tests.finetuning import params as lite0
from tests.networks import network, scratch_state
from tests.resume import (
    Attempts,
    Case,
    Kill,
    Stop,
    at_random,
    check_ways,
    every_place,
    run_whole,
)

pytestmark = pytest.mark.usefixtures("torch_left_as_found")

UNBOUNDED = 1 << 40


# --- where a network is cut ---------------------------------------------------------------------

# (model, layers, pixels) -> the module at the cut, and how many numbers an image is then
CUTS = {
    ("mini8", "F(1-7)R(8)", 28): ("classifier.6", 256),
    ("mini8", "F(1-5)FT(6-7)R(8)", 28): ("classifier.0", 288),
    ("mini8", "F(1-3)R(4)F(5-7)R(8)", 28): ("features.8", 48 * 7 * 7),
    ("mini8", "F(1)FT(2-7)R(8)", 28): ("features.3", 16 * 14 * 14),
    ("alexnet", "F(1-5)R(6-8)", 64): ("classifier.0", 256 * 6 * 6),
    ("resnet18", "F(1-9)R(10)", 64): ("fc", 512),
    ("resnet18", "F(1-7)FT(8-9)R(10)", 64): ("layer4.0", 256 * 4 * 4),
    ("resnet18", "F(1)FT(2-9)R(10)", 64): ("layer1.0", 64 * 16 * 16),
    ("efficientnet_lite0", "F(1-18)R(19)", 64): ("dropout", 1280),
    ("efficientnet_lite0", "F(1-16)FT(17-18)R(19)", 64): ("blocks.15.expand_conv", 192 * 2 * 2),
    ("efficientnet_lite0", "F(1-3)FT(4-18)R(19)", 64): ("blocks.2", 24 * 16 * 16),
}


def images(size: int, number: int = 3) -> torch.Tensor:
    return torch.randn(number, 3, size, size, generator=torch.Generator().manual_seed(3))


def gradients(net: Network, given: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Loss and gradients of one training pass."""
    net.train()
    net.set_keys(5, torch.arange(len(given)))
    logits = net(given)
    loss = torch.nn.functional.cross_entropy(logits, torch.arange(len(given)) % 3)
    parameters = net.trainable()
    found = torch.autograd.grad(loss, list(parameters.values()))
    return logits.detach(), dict(zip(parameters, found, strict=True))


@pytest.mark.parametrize(
    ("model", "layers", "size", "channels_last"),
    [(*cut, False) for cut in CUTS]
    + [(*cut, True) for cut in CUTS if cut[0] == "efficientnet_lite0"],
)
def test_the_rest_of_a_network_computes_what_the_whole_does(
    model: str, layers: str, size: int, channels_last: bool
) -> None:
    """Logits and gradients in training (dropout included) are those of the whole, bit for bit."""
    net = network(model, layers, scratch_state(model))
    if channels_last:
        net.module.to(memory_format=torch.channels_last)
    given = images(size)
    logits, slopes = gradients(net, given)
    prefix = frozen_prefix(net, size, UNBOUNDED)
    assert prefix is not None
    assert (prefix.path, prefix.num_values) == CUTS[model, layers, size]
    features = prefix(given).flatten(1).reshape(3, *prefix.shape)  # as the store gives them back
    rest, found = gradients(prefix.rest, features)
    assert torch.equal(logits, rest)
    assert slopes.keys() == found.keys()
    assert all(torch.equal(slopes[name], found[name]) for name in slopes)


@pytest.mark.parametrize("layers", ["FT(1-7)R(8)", "R(1)F(2-7)R(8)"])
def test_what_learns_first_has_no_frozen_beginning(layers: str) -> None:
    """A frozen layer behind one that learns sees something else each time."""
    assert frozen_prefix(network("mini8", layers, scratch_state("mini8")), 28, UNBOUNDED) is None


def test_what_a_beginning_says_is_bounded() -> None:
    """Where the last cut would say too much there is an earlier one, or none."""
    net = network("mini8", "F(1-7)R(8)", scratch_state("mini8"))
    assert frozen_prefix(net, 28, 255) is None
    large = network("mini8", "F(1-2)FT(3-7)R(8)", scratch_state("mini8"))
    last = frozen_prefix(large, 28, 32 * 7 * 7)
    assert last is not None and last.path == "features.6"
    logits = large(images(28)) if last.undo() is None else None
    assert logits is not None and logits.shape == (3, 3), "it is as it was"
    assert frozen_prefix(large, 28, 32 * 7 * 7 - 1) is None


def test_a_beginning_is_known_by_what_it_depends_on() -> None:
    """Its tensors are those of the layers before the cut, and nothing behind it."""
    net = network("mini8", "F(1-5)FT(6)F(7)R(8)", scratch_state("mini8"))
    prefix = frozen_prefix(net, 28, UNBOUNDED)
    assert prefix is not None
    names = {name.rpartition(".")[0] for name in prefix.tensors()}
    assert names == {f"features.{index}" for index in (0, 3, 6, 8, 10)}


@pytest.mark.parametrize(
    ("growth", "path"),
    [
        ({"type": "wa", "units": 6}, "classifier.4"),  # new units read what fc7 does
        ({"type": "da", "units": 6}, "grown.1.top"),  # what fc7 says
        ({"type": "wwa", "units": 6}, "classifier.1"),  # what fc6 reads
    ],
)
def test_new_units_that_read_earlier_layers_move_the_cut(
    growth: Mapping[str, Any], path: str
) -> None:
    """The rest of a grown network has all that its new parts read."""
    net = growing.grown("mini8", "F(1-7)R(8)", **growth)
    given = images(28)
    logits, slopes = gradients(net, given)
    prefix = frozen_prefix(net, 28, UNBOUNDED)
    assert prefix is not None and prefix.path == path
    rest, found = gradients(prefix.rest, prefix(given))
    assert torch.equal(logits, rest)
    assert all(torch.equal(slopes[name], found[name]) for name in slopes)


# --- runs ---------------------------------------------------------------------------------------

TARGET = {
    "dataset": "digits", "decode_size": 28, "test_fraction": 0.02, "val_per_class": 1,
    "per_class": 2,
}  # fmt: skip
TRAIN = {"epochs": 2, "batch_size": 8, "lr": 0.05, "select": "val/nll", "crop": "none"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of weights of mini8."""
    path = tmp_path_factory.mktemp("weights") / "mini8.safetensors"
    save_file(scratch_state("mini8"), path)
    return path


def raw(weights: Path, layers: str = "F(1-7)R(8)", **sections: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "model": {"name": "mini8", "weights": {"file": str(weights)}},
        "layers": layers,
        "target": TARGET,
        "train": TRAIN,
    }
    for name, changes in sections.items():
        found[name] = {**found.get(name, {}), **changes}
    return found


def case(store: Path, weights: Path, layers: str = "F(1-7)R(8)", **sections: Any) -> Case:
    job = Finetune()
    wanted = job.Params.model_validate(raw(weights, layers, **sections))
    return Case(job, job.resolve(wanted, Path()), store)


def executed(root: Path, wanted: Case) -> tuple[FolderContext, Completed]:
    """The run in `root`, to its end."""
    attempts = Attempts(wanted, root)
    completed = attempts.run()
    assert completed is not None
    return attempts.context, completed


def forwards(context: FolderContext) -> float | None:
    """How many images went through frozen layers; None where training saw images."""
    found = [value for name, value, _ in context.timings if name == "features/num_forwards"]
    cut = [data for kind, data in context.notes if kind == "frozen_prefix"]
    assert bool(found) == bool(cut)
    return sum(found) if found else None


def test_runs_with_one_beginning_compute_it_once(weights: Path, tmp_path: Path) -> None:
    """Another learning rate, head or classes behind the same frozen layers: no forward at all."""
    store = tmp_path / "store"
    first, _ = executed(tmp_path / "first", case(store, weights))
    num_train, num_others = 20, 10 + 36
    assert forwards(first) == 2 * num_train + num_others, "mirrored ones are other images"
    for number, other in enumerate(
        (
            case(store, weights, train={"lr": 0.01}),
            case(store, weights, train={"ema_decay": 0.5, "optimizer": "adamw", "lr": 0.001}),
            case(store, weights, train={"flip": False}),
        )
    ):
        again, _ = executed(tmp_path / str(number), other)
        assert forwards(again) == 0
    fewer, _ = executed(tmp_path / "fewer", case(store, weights, "F(1-5)FT(6-7)R(8)"))
    assert forwards(fewer) == 2 * num_train + num_others, "that is another beginning"
    new, _ = executed(tmp_path / "new", case(store, weights, "F(1-5)R(6-8)"))
    assert forwards(new) == 0, "what comes behind the cut is no part of it"


def test_a_run_behind_frozen_layers_is_the_run(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to the arithmetic of other batches, training on images gives the same weights."""
    wanted = case(tmp_path / "store", weights, "F(1-5)FT(6-7)R(8)", train={"epochs": 4})
    context, completed = executed(tmp_path / "behind", wanted)
    assert forwards(context) is not None
    monkeypatch.setattr(whole, "behind_frozen_layers", lambda training, *_: training)
    context, plain = executed(tmp_path / "plain", wanted)
    assert forwards(context) is None
    for name in plain.metrics:
        assert completed.metrics[name] == pytest.approx(plain.metrics[name], rel=1e-3, abs=1e-5)
    one, other = (load_file(tmp_path / n / "artifacts" / WEIGHTS) for n in ("behind", "plain"))
    start = scratch_state("mini8")
    moved = {name for name in start if one[name].shape == start[name].shape
             and not torch.equal(one[name], start[name])}  # fmt: skip
    assert moved == {f"classifier.{n}.{t}" for n in (1, 4) for t in ("weight", "bias")}
    assert one.keys() == other.keys() == start.keys(), "all of the network is kept"
    assert all(torch.allclose(one[name], other[name], 1e-4, 1e-6) for name in one)


def test_kept_weights_say_what_the_run_says(weights: Path, tmp_path: Path) -> None:
    """The kept network, asked about pixels, gives the predictions that the test has counted."""
    wanted = case(tmp_path / "store", weights)
    executed(tmp_path / "run", wanted)
    artifacts = tmp_path / "run" / "artifacts"
    said = Predictions.read(artifacts / PREDICTIONS).splits["test"]
    shards = (tmp_path / "store" / "images").glob("*/images.npy")
    pixels = {image.tobytes(): image for shard in shards for image in np.load(shard)}
    found = Classifier.load(artifacts / WEIGHTS).probabilities(np.stack([*pixels.values()]))
    expected = np.exp(said.log_probabilities)
    nearest = np.abs(found[None] - expected[:, None]).max(2).min(1)
    assert nearest.max() < 1e-5


def test_each_draw_gets_the_features_of_what_it_shows(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch of features is the beginning's answer to the batch of images, mirrored ones too."""
    compared: list[float] = []
    behind = training_prefix.behind_frozen_layers

    def checked(training: Training, state: TrainingState, checkpoint: Any) -> Training:
        found = behind(training, state, checkpoint)
        net = state.network
        assert isinstance(net, Rest)
        prefix = net.put.__self__  # type: ignore[attr-defined]

        def batches(which: Training) -> list[Batch]:
            return [*which.batches(0), *which.loader.evaluation(which.splits.val, 16)]

        for one, other in zip(batches(training), batches(found), strict=True):
            assert torch.equal(one.keys, other.keys) and torch.equal(one.labels, other.labels)
            expected = prefix(one.images)
            assert torch.allclose(expected, other.images, 1e-4, 1e-5)
            compared.append(float((expected - other.images.flip(0)).abs().max()))
        return found

    monkeypatch.setattr(whole, "behind_frozen_layers", checked)
    executed(tmp_path / "run", case(tmp_path / "store", weights))
    assert len(compared) == 6 + 1 and min(compared) > 1e-3, "other images give other features"


# --- which runs ---------------------------------------------------------------------------------

LOOKS_DIFFER: dict[str, dict[str, Any]] = {
    "random crops": {"target": {"decode_size": 30, "crop_size": 28}, "train": {"crop": "random"}},
    "resized crops": {"train": {"augment": {"resized_crop": {}}}},
    "colour": {"train": {"augment": {"colour": {"brightness": 0.2}}}},
    "mixup": {"train": {"augment": {"mixup": 0.2}}},
    "dropout in frozen layers": {"train": {"frozen_dropout": "on"}},
    "fewer looks than images": {"train": {"epochs": 1}},
}
LOOKS_ARE_ONE: dict[str, dict[str, Any]] = {
    "random crops without room": {"train": {"crop": "random"}},
    "the centre": {"target": {"decode_size": 30, "crop_size": 28}},
    "one epoch as it is": {"train": {"epochs": 1, "flip": False}},
}


@pytest.mark.parametrize("name", {**LOOKS_DIFFER, **LOOKS_ARE_ONE})
def test_images_that_look_different_each_time_are_looked_at(
    name: str, store: Path, weights: Path, tmp_path: Path
) -> None:
    """Features stand for images where they are what the network would see, at no more work."""
    sections = {**LOOKS_DIFFER, **LOOKS_ARE_ONE}[name]
    context, _ = executed(tmp_path / "run", case(store, weights, **sections))
    assert (forwards(context) is None) is (name in LOOKS_DIFFER)


def test_features_are_small(store: Path, weights: Path, tmp_path: Path) -> None:
    """A beginning that says much more than the pixels are is computed each time."""
    context, _ = executed(tmp_path / "large", case(store, weights, "F(1)FT(2-7)R(8)"))
    assert forwards(context) is None
    assert 16 * 14 * 14 * 4 > MOST_TIMES_PIXELS * 3 * 28 * 28 > 32 * 7 * 7 * 4
    context, _ = executed(tmp_path / "small", case(store, weights, "F(1-2)FT(3-7)R(8)"))
    assert forwards(context) is not None


def grow_case(store: Path, weights: Path, **sections: Any) -> Case:
    job = growing.Grow()
    wanted = job.Params.model_validate(raw(weights, **sections))
    return Case(job, job.resolve(wanted, Path()), store)


@pytest.mark.parametrize(
    ("growth", "eligible"),
    [
        ({"type": "wa", "units": 6}, True),
        ({"type": "gradmax", "units": 6}, True),
        ({"type": "wa", "units": 6, "at_step": 3}, False),
        ({"type": "none"}, True),
    ],
)
def test_networks_grown_before_training(
    store: Path, weights: Path, tmp_path: Path, growth: dict[str, Any], eligible: bool
) -> None:
    """New parts learn on features of old layers; not where they come in the middle."""
    wanted = grow_case(store, weights, growth=growth)
    context, completed = executed(tmp_path / "run", wanted)
    assert (forwards(context) is not None) is eligible
    if growth["type"] == "wa":
        assert "test_both/top1" not in completed.metrics or eligible
        ways = [[Stop(place)] for place in range(2, len(context.places), 6)]
        check_ways(wanted, run_whole(wanted, tmp_path / "whole"), tmp_path / "ways", ways)


def test_borrowed_images_are_shown_to_the_whole_network(
    store: Path, weights: Path, tmp_path: Path
) -> None:
    """Joint training shows other images to the same network."""
    wanted = joining.params(
        model={"weights": {"file": str(weights)}}, layers="F(1-7)R(8)", train={"crop": "none"},
        target={"decode_size": 20, "crop_size": 20}, source={"decode_size": 20, "crop_size": 20},
    )  # fmt: skip
    context, _ = joining.run(tmp_path / "run", store, wanted)
    assert forwards(context) is None


# --- interrupted --------------------------------------------------------------------------------

EVERYTHING = {
    "lr_find": {"lowest": 0.002, "highest": 0.01, "steps": 5, "divisor": 1}, "ema_decay": 0.5,
    "micro_batch_size": 3, "precision": "bfloat16", "label_smoothing": 0.1, "clip_norm": 100.0,
    "sampling": "balanced", "channels_last": "on", "early_stop": {"patience_steps": 6},
}  # fmt: skip


def test_left_anywhere_it_ends_the_same(store: Path, weights: Path, tmp_path: Path) -> None:
    """Left while it extracts, trains on features, validates or tests, a run ends the same."""
    wanted = case(store, weights)
    uninterrupted = run_whole(wanted, tmp_path / "whole")
    check_ways(wanted, uninterrupted, tmp_path / "ways", every_place(uninterrupted))
    check_ways(wanted, uninterrupted, tmp_path / "random", at_random(uninterrupted, 3, 4))


@pytest.mark.parametrize("place", [3, 14])
def test_features_that_are_gone_are_computed_again(
    place: int, store: Path, weights: Path, tmp_path: Path
) -> None:
    """Wiped between attempts, features computed anew are those that were kept."""
    wanted = case(store, weights)
    uninterrupted = run_whole(wanted, tmp_path / "whole")
    attempts = Attempts(wanted, tmp_path / "run")
    for end in (Stop(place), Kill(2)):
        shutil.rmtree(store / "features", ignore_errors=True)
        assert attempts.run(end) is None
    shutil.rmtree(store / "features", ignore_errors=True)
    completed = attempts.run()
    assert completed is not None
    assert not uninterrupted.outcome.difference(attempts.outcome(completed))
    assert forwards(attempts.context) == 86


def test_left_anywhere_with_everything_on(store: Path, tmp_path: Path) -> None:
    """Statistics estimated anew, a search, an average, parts of batches, bfloat16."""
    params = lite0(
        layers="F(1-16)FT(17)R(18-19)",
        target={"per_class": 1, "val_per_class": 1, "decode_size": 24, "crop_size": 24},
        train={
            **EVERYTHING, "batch_size": 5, "crop": "none", "schedule": "constant",
            "step_size_epochs": None, "batchnorm": {"frozen": "reestimate"},
        },
    )  # fmt: skip
    wanted = Case(Finetune(), params, store)
    uninterrupted = run_whole(wanted, tmp_path / "whole")
    assert forwards(uninterrupted.context) is not None
    ways = [[Stop(place)] for place in range(2, len(uninterrupted.places), 7)]
    check_ways(wanted, uninterrupted, tmp_path / "ways", ways)


def test_other_statistics_are_another_beginning(store: Path, tmp_path: Path) -> None:
    """Frozen layers whose BatchNorm was estimated anew share no features with others."""
    target = {"per_class": 1, "val_per_class": 1, "decode_size": 24, "crop_size": 24}
    found = []
    for name, norm in (("stored", {}), ("anew", {"batchnorm": {"frozen": "reestimate"}})):
        params = lite0(layers="F(1-18)R(19)", target=target, train={"crop": "none", **norm})
        context, _ = executed(tmp_path / name, Case(Finetune(), params, store))
        found.append(forwards(context))
    assert found[0] == found[1] == 10 * 2 + 10 + 36
